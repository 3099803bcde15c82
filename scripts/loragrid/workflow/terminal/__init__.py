"""What a run of the workflow shows on the terminal: a header, a line for each finished job, bars of the running ones."""
