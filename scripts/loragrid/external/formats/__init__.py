"""Formats of files from elsewhere that need more than a row at a time: lm-eval, nested JSON, TensorBoard."""
