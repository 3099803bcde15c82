"""Published findings about LoRA, and what a study's own cells say about them."""
