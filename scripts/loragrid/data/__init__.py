"""Chat data: sources, conversation formats, tokenizing, the held-out split, the data card."""
