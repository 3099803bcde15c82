"""Checks of a base's files before anything is trained on it."""
