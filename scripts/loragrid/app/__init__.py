"""The app in which a study's models are used: plans, answers side by side, the report."""
