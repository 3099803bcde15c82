"""Whether this machine has the disk to download a base and the memory to hold it.

Sizes come from the hub's list of files or, without network, from the model's shape. A shape gives lower bounds only:
what is refused by them cannot work.
"""

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from loragrid.errors import UserError
from loragrid.models.find_shape import find_shape
from loragrid.study.sections import ModelEntry

GB = 1e9
# Almost all uploads hold 16 bits a weight; a name that says otherwise gives no bound.
UPLOADED_BYTES = 2.0
QUANTISED_NAME = re.compile(r"\d-?bit|gptq|awq|gguf|fp8|int[48]|nvfp4|mxfp4", re.IGNORECASE)
# Bytes a weight while the base is loaded; 4-bit layers pass through memory one at a time.
LOADED_BYTES = {"32bit": 4.0, "16bit": 2.0, "4bit": 0.5}
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def check_machine_room(entries: Iterable[ModelEntry]) -> None:
    """Raise `UserError` if the bases of a study cannot be downloaded or loaded here, by their shapes.

    Reads no network, and says nothing about a model of unknown shape.
    """
    downloads: dict[str, float] = {}
    memory = memory_bytes()
    for entry in entries:
        parameters = _parameters(entry)
        if parameters is None:
            continue
        name = entry.hub or entry.path
        needed = parameters * LOADED_BYTES[entry.precision]
        if memory is not None and needed > memory:
            raise UserError(
                f"model {name}: its {parameters / GB:.1f} billion weights in {entry.precision} take "
                f"{needed / GB:.1f} GB of memory, more than this machine has ({memory / GB:.1f} GB). "
                "Fix: use a machine with more memory, a smaller model, or precision: 4bit."
            )
        if entry.hub and not is_downloaded(entry.hub) and not QUANTISED_NAME.search(entry.hub):
            downloads[entry.hub] = parameters * UPLOADED_BYTES
    if downloads:
        _check_disk(", ".join(downloads), sum(downloads.values()))


def check_download(entry: ModelEntry, *, patterns: list[str]) -> None:
    """Raise `UserError` if the files of a hub model that are not here yet do not fit the disk of the cache.

    `patterns`: the files that are downloaded. Without an answer of the hub nothing is checked: the download itself
    then says why.
    """
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import DryRunError

    if is_downloaded(entry.hub):
        return
    with suppress(httpx.HTTPError, OSError, ValueError, DryRunError):
        files = huggingface_hub.snapshot_download(
            entry.hub, revision=entry.revision, allow_patterns=patterns, dry_run=True
        )
        _check_disk(entry.hub, sum(file.file_size or 0 for file in files if file.will_download))


def is_downloaded(hub: str) -> bool:
    """Whether the cache holds weights of a hub model, of any revision."""
    folder = hub_cache() / f"models--{hub.replace('/', '--')}" / "snapshots"
    return any(folder.glob("*/*.safetensors"))


def hub_cache() -> Path:
    """The folder of downloads, as huggingface_hub finds it; importing that takes half a second."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return Path(given).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home, "hub").expanduser()


def memory_bytes() -> int | None:
    """Memory that this machine, or the container around this process, has; None if the system does not say."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    for file in CGROUP_LIMITS:
        # Absent, or "max" without a limit.
        with suppress(OSError, ValueError):
            memory = min(memory, int(file.read_text()))
    return memory


def _parameters(entry: ModelEntry) -> int | None:
    # An unknown family is refused elsewhere, if at all.
    with suppress(UserError):
        shape = find_shape(entry)
        return None if shape is None else shape.parameters()
    return None


def _check_disk(names: str, needed: float) -> None:
    folder = hub_cache()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"model {names}: the download takes {needed / GB:.1f} GB, and {free / GB:.1f} GB are free in "
            f"{hub_cache()}. Fix: free disk space, or set HF_HOME to a folder on a larger disk."
        )
