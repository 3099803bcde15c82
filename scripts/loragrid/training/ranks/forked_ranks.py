"""Ranks as forks of this process, which cost no imports; only where no rank uses a GPU."""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from loragrid.errors import run_main
from loragrid.training.ranks.launcher import Launch, supervise


def fork_ranks(train: Callable[[], None], *, run: str, count: int, out: Path) -> None:
    """Call `train` in `count` forks, as `launch_ranks` starts a command; raises what that does."""
    with tempfile.TemporaryDirectory(prefix="loragrid-ranks-", ignore_cleanup_errors=True) as folder:
        launch = Launch(run=run, count=count, out=out, folder=Path(folder))
        supervise(launch, lambda rank: _Fork(train, launch, rank))


class _Fork:
    """A fork as a `Process` of the launcher."""

    def __init__(self, train: Callable[[], None], launch: Launch, rank: int) -> None:
        self._status: int | None = None
        # Otherwise the child would write what is buffered here a second time.
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be_rank(train, launch, rank)

    def poll(self) -> int | None:
        if self._status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _be_rank(train: Callable[[], None], launch: Launch, rank: int) -> None:
    status = 1
    try:
        os.environ |= launch.environment(rank)
        if rank > 0:
            output = os.open(launch.output(rank), os.O_WRONLY | os.O_CREAT, 0o644)
            os.dup2(output, 1)
            os.dup2(output, 2)
            # A caller may have replaced them by others.
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        run_main(train)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Never back into the caller's stack: its files and tests belong to the parent.
        os._exit(status)
