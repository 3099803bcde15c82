"""The held-out loss: measured, kept for other jobs, and per byte of the rows' texts."""
