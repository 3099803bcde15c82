"""The safetensors files of a model folder that transformers loads.

Other files beside them, such as Mistral's `consolidated.safetensors`, hold the same weights under other names.
"""

import json
from pathlib import Path

from loragrid.errors import UserError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """`model.safetensors`, or the files that its index names. Raises `UserError` for a folder without them."""
    whole, index = folder / WHOLE, folder / INDEX
    if whole.exists() or whole.is_symlink():
        return [whole]
    if not index.is_file():
        fix = "download or copy the whole folder again"
        if not any(folder.glob("*.safetensors")):
            fix = "convert the weights to safetensors; pickled ones are never loaded"
        raise UserError(f"model folder {folder}: neither {WHOLE} nor {INDEX}. Fix: {fix}.")
    places = _weight_map(index)
    files = [folder / name for name in sorted(set(places.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"model folder {folder}: {len(missing)} of the {len(files)} files that {INDEX} names are missing "
            f"({', '.join(missing[:2])}). Fix: download or copy the whole folder again."
        )
    return files


def _weight_map(index: Path) -> dict[str, str]:
    """Name of a tensor → name of its file."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if not all(isinstance(name, str) for name in found.values()):
            raise TypeError
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{index}: no map of tensors to their files. Fix: download or copy it again.") from None
    return found
