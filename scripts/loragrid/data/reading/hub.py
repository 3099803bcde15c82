"""Data sets of the Hugging Face hub, or local folders in the hub's layout, as numbered rows."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, first_line
from loragrid.runtime.atomic_files import sha256_file, sha256_json

BATCH_ROWS = 1_000
COMMIT = re.compile(r"[0-9a-f]{40}")


def hub_rows(
    hub: str, *, revision: str | None, split: str
) -> tuple[dict[str, Any], Callable[[], Iterator[tuple[int, Any]]]]:
    """The description of a split for the data card, and a function that reads its rows.

    Raises `UserError` if it cannot be loaded.
    """
    import datasets

    is_folder = Path(hub).is_dir()
    commit = None if is_folder else _hub_commit(hub, revision)
    try:
        loaded = datasets.load_dataset(hub, revision=commit, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"data set {hub}, split {split!r}: cannot be loaded ({first_line(error)}). "
            "Fix: check the source in the study file and the network."
        ) from None

    def rows() -> Iterator[tuple[int, Any]]:
        number = 0
        # Batches of columns are read much faster than single rows.
        for batch in loaded.iter(batch_size=BATCH_ROWS):
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield number, dict(zip(batch, values, strict=True))

    description = {"hub": hub, "split": split}
    description |= {"sha256": _folder_sha256(Path(hub))} if is_folder else {"commit": commit}
    return description, rows


def _hub_commit(hub: str, revision: str | None) -> str:
    """The commit of a revision, from the hub or, without a network, from the local cache."""
    if revision and COMMIT.fullmatch(revision):
        return revision
    import httpx
    import huggingface_hub

    try:
        return huggingface_hub.HfApi().dataset_info(hub, revision=revision).sha
    except (httpx.HTTPError, OSError, ValueError) as error:
        cache = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"datasets--{hub.replace('/', '--')}"
        cached_commit = cache / "refs" / (revision or "main")
        if cached_commit.is_file():
            return cached_commit.read_text().strip()
        raise UserError(
            f"data set {hub}, revision {revision or 'main'}: neither on the hub nor in the local "
            f"cache ({first_line(error)}). Fix: check the id, the revision and the network."
        ) from None


def _folder_sha256(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_json([[path.relative_to(folder).as_posix(), sha256_file(path)] for path in files])
