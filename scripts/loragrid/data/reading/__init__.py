"""Files, folders and hub data sets as numbered rows."""
