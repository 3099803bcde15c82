"""Base models: files, loading, shapes, chat templates, adapters, FLOPs."""
