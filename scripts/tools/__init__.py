"""Developer tools: nothing that a stage needs."""
