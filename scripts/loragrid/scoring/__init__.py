"""Scoring: a loaded model with or without an adapter, lm-eval tasks, held-out loss, answers to prompts."""
