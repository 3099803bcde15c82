"""Reading a running-training plan from free text."""
