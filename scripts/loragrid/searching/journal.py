"""The search's storage on disk: Optuna's journal, one appended line per event, whole after any kill."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from loragrid.runtime.kernel_lock import KernelLock

if TYPE_CHECKING:
    from optuna.storages import JournalStorage


def open_journal(path: Path) -> "JournalStorage":
    """Optuna's `JournalStorage` on a file.

    Its lock is the kernel's instead of Optuna's, which is a file: after a SIGKILL that one is held on to for 30 seconds.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalLock(path)))


class JournalLock:
    """`KernelLock` beside a journal, by the two names that Optuna calls before and after it appends.

    Who holds it first mends a last line that another writer's power cut or full disk tore: appended to, that line would be
    one that nobody can read, and so the whole journal.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = KernelLock(journal.with_name(f"{journal.name}.flock"))

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.__enter__()
        try:
            cut_torn_line(self._journal)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        """Let it go."""
        self._lock.__exit__(None, None, None)


def cut_torn_line(path: Path) -> None:
    """Cut the file back to its last whole line. Whole files cost the reading of one byte."""
    with open(path, "r+b") as file:
        if (size := file.seek(0, os.SEEK_END)) == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        os.fsync(file.fileno())
