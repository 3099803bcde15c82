"""Scoring: a loaded model with adapters on and off, lm-eval, held-out loss, answers."""
