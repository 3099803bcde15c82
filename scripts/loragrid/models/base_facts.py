"""Where a base model came from."""

import os
from dataclasses import dataclass

from loragrid.models.loading import resolve_folder, weights_sha256
from loragrid.paths import ROOT
from loragrid.study.sections import ModelEntry


@dataclass(frozen=True, kw_only=True)
class BaseFacts:
    """The hub id or folder that the study file names, the hub commit, and the digest of the weights."""

    source: str
    commit: str | None
    sha256: str


def base_facts(entry: ModelEntry) -> BaseFacts:
    """The facts of a study file's model entry; a folder inside the project is named relative to it."""
    folder, commit = resolve_folder(entry)
    source = entry.hub or entry.path
    if entry.folder is not None and entry.folder.is_relative_to(ROOT):
        source = os.path.relpath(source, ROOT)
    return BaseFacts(source=source, commit=commit, sha256=weights_sha256(folder))
