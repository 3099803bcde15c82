"""The study file: its sections, its checks, its grid of cells."""
