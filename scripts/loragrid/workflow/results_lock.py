"""One snakemake at a time writes the results of a study, from whatever working directory."""

import atexit
from functools import cache
from pathlib import Path

from loragrid.errors import Paused, UserError
from loragrid.runtime.run_lock import StudyLock


@cache
def hold_results(results: Path) -> None:
    """Keep other calls of snakemake away from `results` until this process ends, however it ends; once is enough.

    Raises `UserError` with a line that names the process which holds them.
    """
    results.mkdir(parents=True, exist_ok=True)
    lock = StudyLock(results, run=str(results))
    try:
        lock.__enter__()
    except Paused as refusal:
        raise UserError(str(refusal)) from None
    atexit.register(lock.__exit__, None, None, None)
