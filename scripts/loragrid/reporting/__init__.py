"""The report: sentences, figures, tables, templates."""
