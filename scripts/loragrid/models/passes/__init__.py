"""Passes of a model over rows of tokens: their sizes, padding and losses."""
