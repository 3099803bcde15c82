"""Chat templates: their abilities, the messages and dates they are given, ends of replies, control tokens."""
