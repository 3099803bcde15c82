"""The Optuna search."""
