"""One run on several GPUs: a process (rank) for each, which share the rows of every update."""
