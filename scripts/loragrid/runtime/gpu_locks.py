"""One GPU for each job of this machine, by a folder of locks.

transformers' Trainer uses every GPU that it sees and multiplies the batch by their number, so a job hides all but
one. All jobs of the user agree on which by locks of the kernel (`flock`), which end with their process, however that
dies. Each card has several places: with `--resources gpu=2` two jobs take the first places of two cards, and with a
limit of `vram_mib` further jobs take second places.
"""

import fcntl
import os
import tempfile
from pathlib import Path

from loragrid.errors import UserError
from loragrid.runtime.visible_gpus import VARIABLE, visible_devices

# More jobs than any card runs at once.
PLACES = 64
# Open descriptors are the locks: they live as long as the process.
_held: list[int] = []


def take_one_gpu(folder: Path | None = None) -> str | None:
    """Restrict this process to the visible GPU with the fewest jobs and return it; None if there is no choice.

    To be called before CUDA is initialised. Raises as `lock_one_gpu` does.
    """
    locked = lock_one_gpu(folder)
    if locked is None:
        return None
    device, descriptor = locked
    _held.append(descriptor)
    os.environ[VARIABLE] = device
    return device


def lock_one_gpu(folder: Path | None = None) -> tuple[str, int] | None:
    """The visible GPU with the fewest jobs and the open descriptor that is its lock; None if there is no choice.

    `folder` is that of the locks, by default one of this user in the system's folder for temporary files. Raises
    `UserError` if that folder belongs to another user.
    """
    devices = visible_devices()
    if len(devices) < 2:
        return None
    folder = folder or Path(tempfile.gettempdir(), f"loragrid-gpus-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: belongs to another user. Fix: set TMPDIR to a folder of your own.")
    return _first_free(folder, devices)


def _first_free(folder: Path, devices: tuple[str, ...]) -> tuple[str, int]:
    for place in range(PLACES):
        for device in devices:
            descriptor = os.open(folder / f"{_file_name(device)}.{place}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            return device, descriptor
    raise UserError(f"{folder}: {PLACES} jobs hold each GPU already. Fix: lower --cores or --resources gpu=.")


def _file_name(device: str) -> str:
    return device.replace("/", "_")
