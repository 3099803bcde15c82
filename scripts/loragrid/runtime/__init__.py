"""What a job needs of the machine: atomic files, sessions, locks, the processes that do jobs, provenance."""
