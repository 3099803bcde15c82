"""Jobs that another process does for the one that Snakemake started: forks of a warm interpreter, resident workers."""
