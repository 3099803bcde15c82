"""What a run leaves behind: record, history, losses, failures, status."""
