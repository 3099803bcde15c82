"""`snakemake` for `make study`, with the same arguments: Ctrl-C before its jobs start is one line.

Snakemake takes seconds to import and to read a large study, and an interrupt then ends in its traceback.
"""

if __name__ == "__main__":
    import check_environment  # noqa: F401  ends the process if packages are missing

import os
import signal
import sys
from types import FrameType

from loragrid.errors import EXIT_STOPPED


def main() -> None:
    """Run Snakemake's command line in this process."""
    signal.signal(signal.SIGINT, stop)
    from snakemake.cli import main as snakemake

    # From here on there may be a lock to remove. Once jobs run, they are paused instead (workflow/stop_signals.py).
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[0] = "snakemake"
    try:
        snakemake()
    except KeyboardInterrupt:
        stop()


def stop(number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
    """End this process at once."""
    os.write(2, b"stopped by Ctrl-C\n")
    os._exit(EXIT_STOPPED)


if __name__ == "__main__":
    main()
