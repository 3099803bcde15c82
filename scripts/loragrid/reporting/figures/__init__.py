"""The report's figures: data of a study drawn by matplotlib, as SVG in the page and as files beside it."""
