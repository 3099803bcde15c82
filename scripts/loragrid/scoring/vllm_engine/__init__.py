"""Scoring by vLLM, which runs in an environment of its own: its process, and lm-eval's model in front of it."""
