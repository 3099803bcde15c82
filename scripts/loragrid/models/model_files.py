"""Files of a base model: local folder or hub snapshot, hub commit, digest of the weights."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from loragrid.errors import UserError, first_line
from loragrid.models.download_room import check_download
from loragrid.models.weight_files import weight_files
from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import read_json, sha256_json
from loragrid.runtime.file_digests import session_sha256
from loragrid.study.sections import ModelEntry

# Pickled weights (*.bin, *.pt) can run code when they are loaded, so they are not even downloaded.
MODEL_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model"]


@dataclass(frozen=True, kw_only=True)
class BaseFacts:
    """The hub id or folder in the study file, the hub commit, and the digest of the weights.

    `commit` is None for a local folder.
    """

    source: str
    commit: str | None
    sha256: str


def base_facts(entry: ModelEntry) -> BaseFacts:
    """The facts of a model entry; a folder inside the project is named relative to the project."""
    folder, commit = resolve_folder(entry)
    source = entry.hub or entry.path
    # A relative path keeps records equal between checkouts.
    if entry.folder is not None and entry.folder.is_relative_to(ROOT):
        source = os.path.relpath(source, ROOT)
    return BaseFacts(source=source, commit=commit, sha256=weights_sha256(folder))


def files_state(folder: Path) -> tuple:
    """A folder's path and the name, size and time of each of its files: equal until one is written again."""
    files = []
    for file in sorted(folder.iterdir()):
        state = file.stat()
        files.append((file.name, state.st_size, state.st_mtime_ns))
    return str(folder.resolve()), tuple(files)


def resolve_folder(entry: ModelEntry) -> tuple[Path, str | None]:
    """The local folder of a model entry and, for a hub model, the commit its revision points to.

    A hub model is downloaded on first use (configuration, tokenizer and safetensors only). Raises
    `UserError` if the hub does not provide it, or the disk has no room for it.
    """
    if entry.folder is not None:
        return entry.folder, None
    import httpx
    import huggingface_hub

    check_download(entry, patterns=MODEL_FILES)
    try:
        folder = huggingface_hub.snapshot_download(entry.hub, revision=entry.revision, allow_patterns=MODEL_FILES)
    except (httpx.HTTPError, OSError, ValueError) as error:  # base classes of the hub's own errors
        raise UserError(
            f"model {entry.hub}: revision {entry.revision} cannot be downloaded from the hub "
            f"({first_line(error)}). Fix: check the id, the revision and the network."
        ) from None
    # A snapshot folder is named after its commit.
    return Path(folder), Path(folder).name


def prepared_entry(entry: ModelEntry, data_folder: Path) -> ModelEntry:
    """The entry pinned to the commit that its data were prepared with; a local folder is unchanged.

    A branch may move between stages; all of them must use the tokenizer and weights of one commit.
    """
    if entry.folder is not None:
        return entry
    return replace(entry, revision=read_json(data_folder / "card.json")["model_commit"])


def weights_sha256(folder: Path) -> str:
    """One SHA-256 over the names and SHA-256s of a model folder's safetensors files."""
    return sha256_json([[file.name, session_sha256(file)] for file in sorted(folder.glob("*.safetensors"))])


def check_model_folder(folder: Path) -> str:
    """The folder's model type, after the checks that must pass before anything is loaded from it.

    Raises `UserError` for a folder that is not a model, asks for remote code, or has only pickled
    weights.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"model folder {folder}: config.json cannot be read ({error}). Fix: restore the file."
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise UserError(
            f"model folder {folder}: config.json has no model_type. Fix: give a folder in Hugging Face format."
        )
    # The loaders are called with trust_remote_code=False: of a family that transformers has, they load its classes and
    # ignore auto_map; others they refuse. This names the reason in one line.
    if "auto_map" in config and not _in_transformers(config["model_type"]):
        raise own_code_error(folder, "config.json", fix="use a model that the transformers library supports")
    weight_files(folder)
    if (folder / "adapter_config.json").exists():
        # transformers would load the adapter onto the model, or onto the base that the adapter names.
        raise UserError(
            f"model folder {folder}: an adapter is in the model's folder (adapter_config.json). "
            "Fix: move the adapter's files to a folder of their own."
        )
    return config["model_type"]


def own_code_error(folder: Path, file: str, *, fix: str) -> UserError:
    """The error about a file of a model folder that names Python code to load."""
    problem = f"{file} asks to run the model's own code (auto_map), which is never done"
    return UserError(f"model folder {folder}: {problem}. Fix: {fix}.")


def _in_transformers(model_type: str) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
