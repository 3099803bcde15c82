"""The search in a study file: its space, the study at a point of it, and its winner."""
