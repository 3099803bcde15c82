"""Adapters that were trained elsewhere: fetched as two files, and checked against their base.

Nothing of an adapter is executed: its weights are safetensors and its configuration is data.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, first_line
from loragrid.models.adapter_shapes import FLOATS, Shapes, base_shapes, check_names, check_shapes, tensor_header
from loragrid.models.shape import FAMILIES
from loragrid.runtime.atomic_files import read_json, sha256_json
from loragrid.study.adopted import ADAPTER_FILES
from loragrid.study.identity import file_content
from loragrid.study.sections import AdoptedAdapter, ModelEntry
from loragrid.study.study_file import Study

PEFT_TYPES = ("LORA", "VERA", "IA3")
# An adapter must leave its base as it was once it is taken off. These keys of a configuration make
# it change the base, or need more than the base's own layers.
UNSUPPORTED = ("layer_replication", "target_parameters", "alora_invocation_tokens", "arrow_config", "use_qalora")
# Starts that subtract the adapter from the base's weights, which PEFT repeats whenever it loads one.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Keys of a configuration that are read here → the types of their values, if they have one.
TYPES = {
    "r": int,
    "lora_alpha": (int, float),
    "target_modules": (str, list),
    "modules_to_save": list,
    "rank_pattern": dict,
}
VOCABULARY = ("embed_tokens", "lm_head", "embed_in", "embed_out", "wte", "trainable_tokens", "token_adapter")


def check_local_adapters(study: Study) -> None:
    """Raise `UserError` for the first adopted adapter in a local folder that cannot be used.

    Reads no weights, so that it may run on every call of Snakemake. Adapters from the hub are
    checked when they are fetched.
    """
    known: dict[tuple[str, str], str] = {}
    for adopted in study.adopted.values():
        if adopted.entry.path is None:
            continue
        entry, shapes = study.models[adopted.entry.model], None
        if entry.folder is not None and read_json(entry.folder / "config.json").get("model_type") in FAMILIES:
            # The tensors of these families have the names of their layers.
            shapes = base_shapes(entry.folder)
        folder = Path(adopted.entry.path)
        check_adapter_folder(folder, f"adopt.{adopted.key}", shapes)
        first = known.setdefault((adopted.entry.model, _content(folder)), adopted.key)
        if first != adopted.key:
            raise UserError(
                f"adopt.{adopted.key}: the same adapter as adopt.{first}, byte by byte ({folder}). "
                "Fix: remove one of the two, or give the folder that you meant."
            )


def adapter_folder(key: str, entry: AdoptedAdapter) -> tuple[Path, str | None]:
    """The local folder of an adopted adapter and, for one from the hub, the commit of its revision.

    Only the two files of an adapter are fetched. Raises `UserError` if the hub does not provide
    them.
    """
    if entry.path is not None:
        return Path(entry.path), None
    folder = fetch_adapter(entry.hub, entry.revision, where=f"adopt.{key}")
    # A snapshot folder is named after its commit.
    return folder, folder.name


def fetch_adapter(hub: str, revision: str | None, *, where: str) -> Path:
    """The folder of a hub adapter's two files; `where` names it in messages."""
    import httpx
    import huggingface_hub

    try:
        # A repository may also hold pickles or a whole base model.
        return Path(huggingface_hub.snapshot_download(hub, revision=revision, allow_patterns=list(ADAPTER_FILES)))
    except (httpx.HTTPError, OSError, ValueError) as error:  # base classes of the hub's own errors
        at = f" at revision {revision}" if revision else ""
        raise UserError(
            f"{where}: {hub}{at} cannot be downloaded from the hub ({first_line(error)}). "
            "Fix: check the id, the revision and the network."
        ) from None


def check_adapter_folder(folder: Path, where: str, shapes: Shapes | None) -> dict[str, Any]:
    """The configuration of an adapter, after all checks that need no loading.

    `shapes`: those of the base's weights, None to skip the comparison with them. Raises `UserError`
    for an adapter that is incomplete, has new vocabulary, would change its base, or does not fit.
    """
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            fix = "give a PEFT adapter in safetensors; pickled weights are never loaded"
            raise UserError(f"{where}: no {name} in the folder ({folder}). Fix: {fix}.")
    config = _read_config(folder / "adapter_config.json")
    if config.get("peft_type") not in PEFT_TYPES:
        raise UserError(
            f"{where}: not a kind of adapter that is supported ({config.get('peft_type')}). "
            f"Fix: give one of {', '.join(PEFT_TYPES)}."
        )
    _refuse_wrong_types(config, where)
    header = tensor_header(folder / "adapter_model.safetensors")
    for name, (_, dtype) in header.items():
        if not dtype.startswith(FLOATS):
            raise UserError(
                f"{where}: {name} does not hold floating-point numbers ({dtype}). Fix: save the adapter again."
            )
    tensors = {name: shape for name, (shape, _) in header.items()}
    _refuse_vocabulary(config, tensors, where)
    _refuse_changes_of_the_base(config, where)
    check_shapes(config, tensors, shapes, where)
    check_names(config, tensors, shapes, where)
    return config


def _content(folder: Path) -> str:
    """A digest of an adapter's files."""
    return sha256_json([file_content(str(folder / name)) for name in ADAPTER_FILES])


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({first_line(error)}). Fix: copy it again.") from None
    if not isinstance(config, dict):
        raise UserError(f"{file}: not a map of keys to values. Fix: copy it again.")
    return config


def _refuse_wrong_types(config: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration with a value of a type that PEFT never writes."""
    for key, kinds in TYPES.items():
        value = config.get(key)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise UserError(f"{where}: {key} in adapter_config.json is {value!r}. Fix: copy the adapter again.")


def base_note(config: Mapping[str, Any], entry: ModelEntry) -> str | None:
    """A note if an adapter's configuration names another base than the one it is scored on.

    A note and no error: copies of one model have several names.
    """
    named = str(config.get("base_model_name_or_path") or "").rstrip("/")
    own = entry.hub or entry.path
    if not named or _plain(named) == _plain(own):
        return None
    return f"its configuration names the base {Path(named).name}"


def _plain(model: str) -> str:
    """A model's name without owner, folder or the mark of a quantized copy."""
    name = Path(model).name.lower()
    for suffix in ("-bnb-4bit", "-unsloth", "-4bit"):
        name = name.removesuffix(suffix)
    return name


def _refuse_vocabulary(config: Mapping[str, Any], tensors: Shapes, where: str) -> None:
    saved = config.get("modules_to_save") or []
    whole = [name for name in tensors if not any(part in name for part in (".lora_", "vera_", ".ia3_"))]
    found = [name for name in (*saved, *whole) if any(part in name for part in VOCABULARY)]
    if config.get("trainable_token_indices"):
        found.append("trainable_token_indices")
    if found:
        raise UserError(
            f"{where}: an adapter with new vocabulary ({found[0]}), which cannot be compared with its base. "
            "Fix: leave it out, or give one that trains no embeddings."
        )
    if saved or whole:
        raise UserError(
            f"{where}: trains whole layers of its base too ({[*saved, *whole][0]}). "
            "Fix: leave it out, or give one without modules_to_save."
        )


def _refuse_changes_of_the_base(config: Mapping[str, Any], where: str) -> None:
    start = str(config.get("init_lora_weights", ""))
    if start.startswith(CHANGES_BASE):
        raise UserError(
            f"{where}: an adapter that changes its base's weights when it is loaded (init_lora_weights: {start}). "
            "Fix: convert it to plain LoRA (PEFT's path_initial_model_for_weight_conversion)."
        )
    if config.get("bias", "none") != "none":
        raise UserError(f"{where}: trains its base's biases (bias: {config['bias']}). Fix: leave it out.")
    for key in UNSUPPORTED:
        if config.get(key):
            raise UserError(f"{where}: a setting that is not supported ({key}). Fix: leave the adapter out.")
