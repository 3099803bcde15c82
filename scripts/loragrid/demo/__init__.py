"""The demo's invented world: what its base models are pre-trained on, and what fine-tuning then teaches them."""
