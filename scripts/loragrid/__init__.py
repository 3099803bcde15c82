"""What the stages share, in rooms: a room imports only from rooms below it (the layers are listed
in pyproject.toml)."""

from loragrid.missing_packages import explain_missing_packages

explain_missing_packages()
