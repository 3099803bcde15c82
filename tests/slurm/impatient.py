"""snakemake, but asking Slurm every two seconds: the executor plugin asks ever more seldom, ten seconds more each time.

Asked so often, Slurm is likely to be asked just when Ctrl-C comes, and for that while the plugins' interface knows of no active
jobs and would cancel none. Here they are kept in mind.
"""

import signal
import sys

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

SECONDS = 2
_check, _cancel = Executor.check_active_jobs, Executor.cancel_jobs


async def _check_often(self: Executor, active_jobs: list):
    self.asked_for = active_jobs
    async for job in _check(self, active_jobs):
        yield job
    self.next_seconds_between_status_checks = SECONDS


def _cancel_those_asked_for_too(self: Executor, active_jobs: list) -> None:
    _cancel(self, active_jobs or self.asked_for)


if __name__ == "__main__":
    Executor.asked_for, Executor.check_active_jobs, Executor.cancel_jobs = [], _check_often, _cancel_those_asked_for_too
    # Ctrl-C reaches it also where the tests were started in the background, whose processes a shell tells to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
