"""Licences of a base and of data, from what their folders or the hub say; unknown where nothing says one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.models.model_files import resolve_folder
from loragrid.paths import ROOT
from loragrid.study.sections import DataSource, ModelEntry

UNKNOWN = "unknown: look it up before you publish"


@dataclass(frozen=True)
class Licence:
    """The hub's id of a licence, None if it is unknown, and who says so."""

    id: str | None
    source: str

    @property
    def text(self) -> str:
        """The licence for a reader."""
        return f"{self.id} ({self.source})" if self.id else UNKNOWN


def base_licence(entry: ModelEntry) -> Licence:
    """The licence of a base: that of the card in its folder, or of its card on the hub."""
    folder, commit = resolve_folder(entry)
    if entry.folder is not None and entry.folder.resolve().is_relative_to(ROOT / "resources"):
        return Licence("mit", "made by loragrid")
    if (folder / "README.md").is_file():
        return Licence(_card_licence(folder / "README.md"), "the card in its folder")
    if entry.hub is None:
        return Licence(None, "")
    return _hub_licence(entry.hub, commit, kind="model")


def source_licence(source: DataSource) -> Licence:
    """The licence of a data set; rows from a file have none that is known."""
    if source.generator is not None:
        return Licence("mit", "made by loragrid")
    if source.hub is not None:
        return _hub_licence(source.hub, source.revision, kind="dataset")
    return Licence(None, "")


def _hub_licence(name: str, revision: str | None, *, kind: str) -> Licence:
    """The licence in a card on the hub; unknown where the hub cannot be reached."""
    import httpx
    import huggingface_hub

    try:
        card = huggingface_hub.hf_hub_download(name, "README.md", revision=revision, repo_type=kind, etag_timeout=5)
    except (httpx.HTTPError, OSError, ValueError):  # base classes of the hub's own errors
        return Licence(None, "")
    return Licence(_card_licence(Path(card)), f"the card of {name} on the hub")


def _card_licence(card: Path) -> str | None:
    """The licence in a card's metadata; other people's cards may hold anything there."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        found: Any = (metadata_load(card) or {}).get("license")
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return found if isinstance(found, str) and found.isprintable() and len(found) <= 100 else None
