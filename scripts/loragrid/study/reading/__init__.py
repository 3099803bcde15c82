"""The study file as text: YAML into plain values."""
