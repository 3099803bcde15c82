"""What would decide the questions that a study leaves open, and what it would cost."""
