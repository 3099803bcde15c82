"""snakemake, but asking Slurm every two seconds: the executor plugin asks ever more seldom, ten seconds more each time."""

import signal
import sys

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

SECONDS = 2
_check = Executor.check_active_jobs


async def _check_often(self: Executor, active_jobs: list):
    async for job in _check(self, active_jobs):
        yield job
    self.next_seconds_between_status_checks = SECONDS


if __name__ == "__main__":
    Executor.check_active_jobs = _check_often
    # Ctrl-C reaches it also where the tests were started in the background, whose processes a shell tells to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
