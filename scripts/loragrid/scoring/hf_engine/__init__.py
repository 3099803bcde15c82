"""Scoring by transformers: greedy answers in which rows leave the batch, and prefixes that rows share."""
