"""The shape of a study's model: from its folder, the study file, or the hub. Imports no torch for known families."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, first_line
from loragrid.models.meta_shape import listed_shape
from loragrid.models.shape import FAMILIES, Shape, read_shape
from loragrid.runtime.atomic_files import read_json
from loragrid.study.sections import ModelEntry


def find_shape(entry: ModelEntry, *, network: bool = False) -> Shape | None:
    """The shape of a model entry from the source that `find_config` finds; None without a source.

    A family that shape.py does not know is built on torch's meta device if `network` is allowed, which
    takes seconds; otherwise its shape is known if it was built before on this machine.
    """
    found = find_config(entry, network=network)
    if found is None:
        return None
    config, where = found
    if config.get("model_type") in FAMILIES:
        return read_shape(config, where)
    return listed_shape(config, where, build=network)


def find_config(entry: ModelEntry, *, network: bool = False) -> tuple[Mapping[str, Any], str] | None:
    """A model entry's configuration and the name of its source, or None.

    The source is the folder's config.json, the study file's `shape`, or the hub's config.json;
    without `network` the hub's file is read only if an earlier download left it.
    """
    if entry.folder is not None:
        file = entry.folder / "config.json"
        return _read_config(file), str(file)
    if entry.shape is not None:
        return entry.shape, f"shape of {entry.hub}"
    file = _hub_config(entry.hub, entry.revision, network)
    return None if file is None else (_read_config(file), f"config.json of {entry.hub}")


def vocabulary_size(entry: ModelEntry) -> int | None:
    """Size of a model's vocabulary, from its configuration or the study file; None if unknown."""
    return _stated(entry, "vocab_size")


def stated_context(entry: ModelEntry) -> int | None:
    """A model's context in tokens, from its configuration; None if that is not known here or states none."""
    context = _stated(entry, "max_position_embeddings")
    return context if isinstance(context, int) else None


def _stated(entry: ModelEntry, name: str) -> Any:
    found = find_config(entry)
    if found is None:
        return None
    config = found[0]
    # Multimodal models keep the language model's settings in `text_config`.
    return config.get(name) or (config.get("text_config") or {}).get(name)


def _read_config(file: Path) -> Mapping[str, Any]:
    config = read_json(file)
    if not isinstance(config, dict):
        raise UserError(f"{file}: no model configuration, which is a map of keys to values. Fix: copy the file again.")
    return config


@cache
def _hub_config(hub: str, revision: str, network: bool) -> Path | None:
    import httpx
    import huggingface_hub

    try:
        if not network:
            found = huggingface_hub.try_to_load_from_cache(hub, "config.json", revision=revision)
            # A file that is known to be absent is reported as an object of another type.
            return Path(found) if isinstance(found, str) else None
        return Path(huggingface_hub.hf_hub_download(hub, "config.json", revision=revision))
    except (httpx.HTTPError, OSError, ValueError) as error:  # base classes of the hub's own errors
        raise UserError(
            f"model {hub}: config.json cannot be downloaded from the hub ({first_line(error)}). "
            "Fix: write the model's shape into the study file."
        ) from None
