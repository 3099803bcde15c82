"""Statistics of paired comparisons: they know arrays, and nothing of studies or runs."""
