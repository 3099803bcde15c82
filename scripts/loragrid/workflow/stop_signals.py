"""SIGINT and SIGTERM to Snakemake's process alone: its jobs receive them too, as they do after Ctrl-C in a terminal."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable

import psutil

# A terminal or a batch system may send both to the group and to the process; that is one request.
ONE_REQUEST_SECONDS = 2.0
LOOK_AGAIN_SECONDS = 0.2


class StopRequests:
    """Passes the first SIGINT or SIGTERM on to all jobs of this process, and stops Snakemake as Ctrl-C does.

    Snakemake itself would let the running jobs finish, which may take hours. `say` gets a line for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._first: float | None = None
        # The jobs of a process in the background of a script ignore SIGINT, as it does.
        self._ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    def install(self) -> None:
        """Handle the signals from now on; for the main thread."""
        if not self._ignored:
            signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, _: object) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            threading.Thread(target=self._signal_jobs, args=(number,), daemon=True).start()
        elif now - self._first < ONE_REQUEST_SECONDS:
            return
        raise KeyboardInterrupt

    def _signal_jobs(self, number: int) -> None:
        name = signal.Signals(number).name
        self._say(f"loragrid: {name}: running jobs save their work and stop; no other job begins")
        signalled: set[int] = set()
        # Again and again: Snakemake may be starting a job right now.
        while True:
            for job in psutil.Process().children():
                if job.pid not in signalled:
                    signalled.add(job.pid)
                    with contextlib.suppress(psutil.Error):
                        job.send_signal(signal.SIGTERM if self._ignored else signal.SIGINT)
            time.sleep(LOOK_AGAIN_SECONDS)
