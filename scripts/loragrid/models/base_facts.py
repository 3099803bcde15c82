"""Where a base model came from."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.models.loading import resolve_folder, weights_sha256
from loragrid.paths import ROOT


@dataclass(frozen=True, kw_only=True)
class BaseFacts:
    """The hub id or folder that the study file names, the hub commit, and the digest of the weights."""

    source: str
    commit: str | None
    sha256: str


def base_facts(entry: dict[str, Any]) -> BaseFacts:
    """The facts of a study file's model entry; a folder inside the project is named relative to it."""
    folder, commit = resolve_folder(entry)
    source = entry.get("hub") or entry["path"]
    if "path" in entry and Path(source).is_relative_to(ROOT):
        source = os.path.relpath(source, ROOT)
    return BaseFacts(source=source, commit=commit, sha256=weights_sha256(folder))
