"""A lock between processes that ends with its holder, however that dies."""

import fcntl
import os
from pathlib import Path
from types import TracebackType


class KernelLock:
    """A blocking context manager on `flock`: nothing is left behind by a SIGKILL, so nobody has to guess from a file's age.

    Holds between machines too where the file system passes locks on (NFS, Lustre mounted with `flock`). Not re-entrant.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def __enter__(self) -> "KernelLock":
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        descriptor, self._descriptor = self._descriptor, None
        os.close(descriptor)
