"""The Gradio app: running plans by a study's models, their answers side by side, and the report."""
