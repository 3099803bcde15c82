"""The search's storage: Optuna's journal, one appended line per event, intact after any kill."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from optuna.storages import JournalStorage

LOCK_POLL_SECONDS = 0.01


def process_lock(path: Path) -> FileLock:
    """A lock between processes that waits until it is free, as a context manager.

    It is the kernel's `flock`, so the death of its holder releases it, however it dies, and nobody
    has to guess from a file's age. It also holds between machines where the file system forwards
    locks: NFS does, Lustre if mounted with `flock`.
    """
    # A file system without flock raises. filelock's fallback, a lock file, would outlive a killed
    # worker.
    return FileLock(path, poll_interval=LOCK_POLL_SECONDS, fallback_to_soft=False)


def open_journal(path: Path) -> "JournalStorage":
    """Optuna's `JournalStorage` on a file, with `JournalLock` instead of Optuna's own lock.

    Optuna's lock is a file, which after a SIGKILL blocks all other workers for 30 seconds.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalLock(path)))


class JournalLock:
    """A lock beside a journal, with the two methods that Optuna calls around an append."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = process_lock(journal.with_name(f"{journal.name}.flock"))

    def acquire(self) -> bool:
        """Wait for the lock, then repair the end of the journal."""
        self._lock.acquire()
        try:
            # A power cut or a full disk may have torn another writer's last line. Appending to it
            # would make a line that Optuna cannot read, and with it the whole journal unreadable.
            cut_torn_line(self._journal)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


def cut_torn_line(path: Path) -> None:
    """Truncate the file after its last whole line. An intact file costs reading one byte."""
    with open(path, "r+b") as file:
        if (size := file.seek(0, os.SEEK_END)) == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        os.fsync(file.fileno())
