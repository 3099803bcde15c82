"""Measurements, each beside the tool that one would use instead. Run as `python -m benchmarks.NAME`."""
