"""What Snakemake's rules need of a study: options, jobs and their environment. Imports nothing of
Snakemake."""
