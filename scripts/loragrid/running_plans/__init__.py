"""Reads running-training plans from free text: weeks, running days and the race."""
