"""Results of runs that were trained elsewhere."""
