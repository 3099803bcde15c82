"""Scoring: a loaded model with or without an adapter, lm-eval, held-out loss, answers."""
