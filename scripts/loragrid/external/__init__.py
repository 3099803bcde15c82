"""External runs: finished runs that loragrid did not train, read from other tools' files."""
