"""A study file for data and a model of one's own: what is in them, and settings that suit both."""
