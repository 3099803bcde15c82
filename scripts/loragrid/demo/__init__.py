"""The demo's invented world: pre-training text of its base models, and running plans for fine-tuning."""
