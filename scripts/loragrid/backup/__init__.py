"""Copies of finished and half-finished work at another place, and the way back."""
