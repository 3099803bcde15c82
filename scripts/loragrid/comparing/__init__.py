"""Comparisons: paired tests, clusters, power, verdicts, causes."""
