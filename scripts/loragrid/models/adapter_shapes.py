"""Whether an adapter fits its base, from the shapes in their files; no weights are read."""

import json
import re
import struct
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, one_line
from loragrid.models.weight_files import weight_files

Shapes = Mapping[str, tuple[int, ...]]  # name of a tensor → its shape
PREFIX = "base_model.model."
# The end of a tensor's name in an adapter, after the name of the layer.
PART = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|vera_lambda_[bd]|ia3_l)(\.(weight|bias))?$")
SHARED = re.compile(r"base_model\.(model\.)?vera_[AB]")  # VeRA's matrices, one for all layers
PAIRS = [("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B"), ("vera_lambda_b", "vera_lambda_d")]
PAIRS += [(other, one) for one, other in PAIRS]
FLOATS = ("F", "BF")  # how the names of floating-point dtypes begin in a safetensors file
LONGEST_HEADER = 100 * 2**20  # bytes; the format's own limit


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape, from the header of a safetensors file; raises as `tensor_header`."""
    return {name: shape for name, (shape, _) in tensor_header(file).items()}


def tensor_header(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name → (shape, dtype such as "BF16"), from the header of a safetensors file; a broken file is a `UserError`."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > LONGEST_HEADER:
                raise ValueError("its header is too long")
            header = json.loads(stream.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        whole = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if file.stat().st_size < whole:
            raise ValueError(f"it ends after {file.stat().st_size:,} of {whole:,} bytes")
        return {name: (tuple(entry["shape"]), str(entry["dtype"])) for name, entry in tensors.items()}
    except (OSError, ValueError, struct.error, LookupError, TypeError, AttributeError) as error:
        reason = one_line(str(error))[:200]
        raise UserError(f"{file}: not a safetensors file ({reason}). Fix: download or copy it again.") from None


def base_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape of all tensors in the safetensors files that transformers loads from a model folder."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(folder):
        shapes |= tensor_shapes(file)
    return shapes


@cache
def loaded_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape of the parameters that transformers would load from a model folder.

    They may have other names than in the files. No weights are read.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return {name: tuple(weight.shape) for name, weight in model.named_parameters(remove_duplicate=False)}


def check_names(config: Mapping[str, Any], tensors: Shapes, base: Shapes | None, where: str) -> None:
    """Raise `UserError` for weights that PEFT would leave out without an error, or that are not all there.

    Their layers would stay as they are in the base, and its scores would pass for the adapter's.
    """
    parts: dict[str, set[str]] = {}
    for name in tensors:
        found = PART.search(name)
        if SHARED.fullmatch(name):
            continue
        if found is None or not name.startswith(PREFIX):
            raise UserError(
                f"{where}: a tensor with a name that PEFT does not read ({name}). "
                "Fix: save the adapter again with PEFT's save_pretrained."
            )
        parts.setdefault(name[: found.start()], set()).add(found[1])
    if not parts:
        raise UserError(f"{where}: no weights of an adapter in adapter_model.safetensors. Fix: copy it again.")
    for module, found in parts.items():
        for one, other in PAIRS:
            if one in found and other not in found:
                raise UserError(f"{where}: {one} of {module} without its {other}. Fix: copy the adapter again.")
    if config.get("use_dora") and not any("lora_magnitude_vector" in found for found in parts.values()):
        raise UserError(f"{where}: no lora_magnitude_vector, but use_dora in its configuration. Fix: copy it again.")
    _check_targets(config, parts, base or {}, where)


def _check_targets(config: Mapping[str, Any], modules: Iterable[str], base: Shapes, where: str) -> None:
    """Refuse an adapter without weights for a target module that its base has."""
    targets = config.get("target_modules")
    if not isinstance(targets, list) or config.get("layers_to_transform") or config.get("exclude_modules"):
        return
    for target in targets:
        in_base = any(name.endswith(f".{target}.weight") for name in base)
        if in_base and not any(module.endswith(f".{target}") for module in modules):
            raise UserError(f"{where}: no weights for its target module {target}. Fix: copy the adapter again.")


def check_shapes(config: Mapping[str, Any], tensors: Shapes, base: Shapes | None, where: str) -> None:
    """Raise `UserError` for a tensor that contradicts the configuration or does not fit the base.

    `base`: shapes of the base's weights, None to skip the comparison with them.
    """
    ranks = {config.get("r"), *(config.get("rank_pattern") or {}).values()}
    widest = 0
    for name, shape in tensors.items():
        found = PART.search(name)
        if found is None:  # VeRA's matrices that all layers share
            continue
        module, part = name[: found.start()].removeprefix(PREFIX), found[1]
        if not _is_target(module, config.get("target_modules")):
            raise UserError(
                f"{where}: weights for {module}, which is not among its target_modules. "
                "Fix: give the adapter's own configuration."
            )
        if part == "lora_A" and shape[0] not in ranks:
            raise UserError(
                f"{where}: rank {shape[0]} in its weights and {config.get('r')} in its configuration. "
                "Fix: give the adapter's own configuration."
            )
        if base is not None and found[3] != "bias":
            widest = max(widest, _check_with_base(module, part, shape, base, config, where))
    shared = tensors.get(f"{PREFIX}vera_A") or tensors.get("base_model.vera_A")
    if shared is not None and widest and shared[1] != widest:
        raise UserError(
            f"{where}: vera_A is {_size(shared)}, which does not fit the base's widest layer ({widest} inputs). "
            "Fix: set adopt's model to the adapter's base."
        )


def _check_with_base(
    module: str, part: str, shape: tuple[int, ...], base: Shapes, config: Mapping[str, Any], where: str
) -> int:
    """The inputs of a layer that a tensor of the adapter fits."""
    weight = base.get(f"{module}.weight")
    # A tied output head is not a tensor of its own.
    if weight is None and module == "lm_head":
        weight = base.get("model.embed_tokens.weight")
    if weight is None:
        raise UserError(f"{where}: its base has no layer {module}. Fix: set adopt's model to the adapter's base.")
    outputs, inputs = weight[0], weight[-1]
    if config.get("fan_in_fan_out"):
        outputs, inputs = inputs, outputs
    wanted = {
        "lora_A": {(shape[0], inputs)},
        "lora_B": {(outputs, shape[-1])},
        "lora_embedding_A": {(shape[0], outputs)},
        "lora_embedding_B": {(inputs, shape[-1])},
        "lora_magnitude_vector": {(outputs,)},
        "vera_lambda_b": {(outputs,)},
        "vera_lambda_d": {shape},
        # A factor of the inputs or of the outputs of a layer.
        "ia3_l": {(1, inputs), (outputs, 1)},
    }[part]
    if shape not in wanted:
        raise UserError(
            f"{where}: {part} of {module} is {_size(shape)}, which does not fit the base's {_size(weight)}. "
            "Fix: set adopt's model to the adapter's base."
        )
    return inputs


def _is_target(module: str, targets: Any) -> bool:
    """Whether a layer is adapted, by PEFT's rule."""
    if targets is None or targets == "all-linear":
        return True
    if isinstance(targets, str):
        try:
            return re.fullmatch(targets, module) is not None
        except re.error:
            return False
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
