"""Why runs are worse, or could be better: the evidence, the causes, and faults of the whole study."""
