"""Training: backends, progress, checkpoints, one session of a run."""
