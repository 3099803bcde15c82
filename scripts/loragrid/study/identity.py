"""Identities: everything that determines a result, as plain values that are hashed.

Local paths are replaced by digests of their content, so a study may move; names of models and data
sets do not count, so they may be renamed.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.runtime.delegation.residency import until_next_job
from loragrid.runtime.file_digests import kept_sha256
from loragrid.study.file_paths import visible_files
from loragrid.study.sections import ModelEntry

WHOLE_FILE_BYTES = 64 * 2**20


def model_identity(entry: ModelEntry) -> dict[str, Any]:
    """The base and its chat template, without its precision."""
    if entry.path is not None:
        identity: dict[str, Any] = {"content": _folder_content(entry.path)}
    else:
        identity = {"hub": entry.hub, "revision": entry.revision}
    template = entry.chat_template
    identity["chat_template"] = None if template is None else file_content(template)
    return identity


def data_identity(data: Mapping[str, Any], name: str, *, limited: bool = True) -> dict[str, Any]:
    """The data set `name` of the section `data` of a study file, and the sets that it mixes.

    With `limited` false the sets' `rows` do not count, as for the held-out rows.
    """
    entry = data[name]
    identity: dict[str, Any] = {"filters": entry["filters"]}
    if limited:
        identity["rows"] = entry["rows"]
    # Studies from before this key keep their ids.
    if entry.get("long_rows", "cut") != "cut":
        identity["long_rows"] = entry["long_rows"]
    if "mix" in entry:
        parts = []
        for part, weight in entry["mix"].items():
            parts.append([sha256_json(data_identity(data, part, limited=limited)), weight])
        return identity | {"mix": canonical(sorted(parts))}
    source = entry["source"]
    if "path" in source:
        source = {"sha256": _source_content(Path(source["path"]))}
    # Keys that were added later count only where they are set, so that older studies keep their ids.
    identity |= {key: entry[key] for key in ("columns", "roles") if entry.get(key)}
    if entry.get("bad_rows", "stop") != "stop":
        identity["bad_rows"] = entry["bad_rows"]
    return identity | {"source": source}


def heldout_identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The held-out rows of a complete study file, and how they are cut and labelled."""
    heldout, base = settings["heldout"], settings["base_case"]
    return {
        "set": data_identity(settings["data"], heldout["set"], limited=False),
        "rows": heldout["rows"],
        "seed": heldout["seed"],
        "max_length_tokens": base["max_length_tokens"],
        "loss_on": base["loss_on"],
    }


def canonical(value: Any) -> Any:
    """`value` with 1.0 as 1 at any depth: one number, but two texts in JSON."""
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@until_next_job
@cache
def _source_content(path: Path) -> str:
    """Digest of a file of rows, or of the files in a folder, whose names give their order."""
    if not path.is_dir():
        return _whole_content(path)
    files = visible_files(path)
    return sha256_json([[file.relative_to(path).as_posix(), _whole_content(file)] for file in files])


def _whole_content(path: Path) -> str:
    """SHA-256 of a file of rows, of all of it whatever its size: one changed row is another data set."""
    return sha256_file(path) if path.stat().st_size <= WHOLE_FILE_BYTES else kept_sha256(path)


@until_next_job
@cache
def _folder_content(folder: str) -> str:
    """Digest of a model's configuration, tokenizer, template and weights.

    Other files, such as a README, do not count.
    """
    kinds = {".json", ".safetensors", ".jinja", ".model", ".txt"}
    files = sorted(file for file in Path(folder).iterdir() if file.suffix in kinds and file.is_file())
    return sha256_json([[file.name, file_content(str(file))] for file in files])


@until_next_job
@cache
def file_content(path: str) -> str:
    """Digest of a file of a model; over 64 MiB, of its size and of 64 evenly spaced blocks."""
    size = Path(path).stat().st_size
    if size <= WHOLE_FILE_BYTES:
        return sha256_file(path)
    # This runs on every call of snakemake, where gigabytes of weights would take a minute. The
    # run's record holds their full digest.
    blocks = []
    with open(path, "rb") as file:
        for index in range(64):
            file.seek((size - 2**16) * index // 63)
            blocks.append(file.read(2**16).hex())
    return sha256_json([size, blocks])
