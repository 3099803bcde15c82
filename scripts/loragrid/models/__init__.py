"""Base models: loading, shapes, chat templates, adapters, FLOPs."""
