"""What a job needs of the machine: atomic files, sessions, locks, the fork server, provenance."""
