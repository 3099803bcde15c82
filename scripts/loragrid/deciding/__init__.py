"""What would decide the questions that a study leaves open: how likely each way closes one, and what it costs."""
