"""Contamination: items of scoring tasks whose text is also in the training rows."""
