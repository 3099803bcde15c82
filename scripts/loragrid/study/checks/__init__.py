"""Checks of a study file; they only refuse."""
