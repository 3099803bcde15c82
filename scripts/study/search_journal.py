"""The search's storage on disk: Optuna's journal, one appended line per event, whole after any kill."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from study.kernel_lock import KernelLock

if TYPE_CHECKING:
    from optuna.storages import JournalStorage


def open_journal(path: Path) -> "JournalStorage":
    """Optuna's `JournalStorage` on a file. Mends a last line that a power cut or a full disk tore.

    Its lock is the kernel's instead of Optuna's, which is a file: after a SIGKILL that one is held on to for 30 seconds.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lock = JournalLock(path.with_name(f"{path.name}.flock"))
    lock.acquire()
    try:
        cut_torn_line(path)
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


class JournalLock:
    """`KernelLock` by the two names that Optuna's journal calls."""

    def __init__(self, path: Path) -> None:
        self._lock = KernelLock(path)

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.__enter__()
        return True

    def release(self) -> None:
        """Let it go."""
        self._lock.__exit__(None, None, None)


def cut_torn_line(path: Path) -> None:
    """Cut the file back to its last whole line: Optuna would append to a torn one and never read the journal again."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with open(path, "r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
