"""Answers as the page shows them: the words that training changed, and similarities as a small drawing."""
