"""Jobs that another process does."""
