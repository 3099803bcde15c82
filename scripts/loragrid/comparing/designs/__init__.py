"""Designs of a study: effects on axes, interactions, data sizes, and scores along runs."""
