"""The GPUs of each job of this machine, by a folder of locks.

transformers' Trainer uses every GPU that it sees and multiplies the batch by their number, so a job hides all but
its own. All jobs of the user agree on which by locks of the kernel (`flock`), which end with their process, however
that dies. Each card has several places: with `--resources gpu=2` two jobs take the first places of two cards, and
with a limit of `vram_mib` further jobs take second places.
"""

import fcntl
import os
import tempfile
from pathlib import Path

from loragrid.errors import UserError
from loragrid.runtime.visible_gpus import VARIABLE, check_gpu_count, visible_devices

# More jobs than any card runs at once.
PLACES = 64
# Open descriptors are the locks: they live as long as the process.
_held: list[int] = []


def take_one_gpu(folder: Path | None = None) -> str | None:
    """Restrict this process to the visible GPU with the fewest jobs and return it; None if there is no choice.

    To be called before CUDA is initialised. Raises as `lock_one_gpu` does.
    """
    taken = take_gpus(1, folder)
    return taken[0] if taken else None


def take_gpus(count: int, folder: Path | None = None) -> tuple[str, ...]:
    """As `take_one_gpu` for `count` GPUs; empty if there is no choice. Raises `UserError` also if fewer are visible."""
    check_gpu_count(count)
    locked = _lock_gpus(count, folder)
    if not locked:
        return ()
    devices, descriptors = zip(*locked, strict=True)
    _held.extend(descriptors)
    os.environ[VARIABLE] = ",".join(devices)
    return devices


def lock_one_gpu(folder: Path | None = None) -> tuple[str, int] | None:
    """The visible GPU with the fewest jobs and the open descriptor that is its lock; None if there is no choice.

    `folder` is that of the locks, by default one of this user in the system's folder for temporary files. Raises
    `UserError` if that folder belongs to another user.
    """
    locked = _lock_gpus(1, folder)
    return locked[0] if locked else None


def _lock_gpus(count: int, folder: Path | None) -> list[tuple[str, int]]:
    devices = visible_devices()
    if len(devices) < 2:
        return []
    folder = folder or Path(tempfile.gettempdir(), f"loragrid-gpus-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: belongs to another user. Fix: set TMPDIR to a folder of your own.")
    return _first_free(folder, devices, count)


def _first_free(folder: Path, devices: tuple[str, ...], count: int) -> list[tuple[str, int]]:
    locked: dict[str, int] = {}
    for place in range(PLACES):
        for device in devices:
            if device in locked or len(locked) == count:
                continue
            descriptor = _lock(folder / f"{_file_name(device)}.{place}")
            if descriptor is not None:
                locked[device] = descriptor
    if len(locked) < count:
        raise UserError(f"{folder}: {PLACES} jobs hold each GPU already. Fix: lower --cores or --resources gpu=.")
    return list(locked.items())


def _lock(path: Path) -> int | None:
    """The open descriptor that locks a place; None if another job holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _file_name(device: str) -> str:
    return device.replace("/", "_")
