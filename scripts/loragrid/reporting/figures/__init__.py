"""The report's figures, drawn by matplotlib: SVG in the page and files beside it."""
