"""Whether a base's safetensors files hold the tensors that its config.json asks for, and no others.

transformers fills a missing tensor with random numbers, other ones in each process, and only warns: runs of one study
would start from different bases.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, one_line
from loragrid.models.adapter_shapes import FLOATS, Shapes, base_shapes, tensor_header
from loragrid.models.find_shape import find_config
from loragrid.models.shape import FAMILIES, Shape, read_shape
from loragrid.models.weight_files import weight_files
from loragrid.study.study_file import Study

SHOWN = 2  # names of tensors in a message


def check_report(report: Mapping[str, Any], folder: Path) -> None:
    """Raise `UserError` if transformers' loading info has a tensor that is missing, unexpected or of another shape."""
    sizes = sorted(report["mismatched_keys"])
    problems = [
        _problem("missing", report["missing_keys"]),
        _problem("not of this model", report["unexpected_keys"]),
        _problem("of another shape", [f"{name} {list(found)}, not {list(asked)}" for name, found, asked in sizes]),
    ]
    _refuse([problem for problem in problems if problem], folder)


def check_tensors(folder: Path) -> dict[str, str]:
    """`check_report` of a folder without reading its weights, on torch's meta device: a second, and torch's import.

    A folder whose weights are quantized already is checked when it is loaded: its tensors are packed in other shapes.
    Returns the names of tensors that are one by its config.json: tied one → the one that it shares.
    """
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            problem = f"not a causal language model ({config.model_type})"
            raise UserError(f"model folder {folder}: {problem}. Fix: give another model.")
        quantization = getattr(config, "quantization_config", None)
        if quantization is not None:
            _check_quantization(quantization, folder)
            return {}
        check_dtypes(folder)
        tensors = {name: torch.empty(shape, device="meta") for name, shape in base_shapes(folder).items()}
        model, report = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except UserError:
        raise
    except Exception as error:  # each architecture raises its own errors for sizes that it does not expect
        raise UserError(
            f"model folder {folder}: transformers cannot build the model ({one_line(str(error))[:300]}). "
            "Fix: check its config.json and safetensors files."
        ) from None
    check_report(report, folder)
    return dict(model.all_tied_weights_keys)


def check_dtypes(folder: Path) -> None:
    """Raise `UserError` for weights that are not floating-point numbers, in a folder without a quantization_config.

    transformers would cast them to floats, without the scales of their quantization.
    """
    for file in weight_files(folder):
        for name, (_, dtype) in tensor_header(file).items():
            # Other integers are masks and positions.
            if name.endswith(".weight") and not dtype.startswith(FLOATS):
                raise UserError(
                    f"{file}: {name} does not hold floating-point numbers ({dtype}), and config.json has no "
                    "quantization_config. Fix: give the model in 16 bits, or the config.json of the quantized one."
                )


def _check_quantization(quantization: Mapping[str, Any], folder: Path) -> None:
    """Refuse a method of quantization that transformers does not know, since it would load the base without it."""
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    method = quantization.get("quant_method") or "bitsandbytes"  # old files name none
    if method not in {*AUTO_QUANTIZATION_CONFIG_MAPPING, "bitsandbytes"}:
        raise UserError(
            f"model folder {folder}: quantization_config.quant_method is not one that transformers knows ({method}). "
            "Fix: correct config.json, or give the model in 16 bits."
        )


def check_local_bases(study: Study) -> None:
    """`check_dtypes` and `check_headers` of models in local folders; reads no weights, for every call of Snakemake."""
    for entry in study.models.values():
        if entry.folder is None:
            continue
        config, where = find_config(entry)
        if config.get("quantization_config"):
            continue
        check_dtypes(entry.folder)
        if config.get("model_type") in FAMILIES:
            check_headers(read_shape(config, where), entry.folder)


def check_headers(shape: Shape, folder: Path) -> None:
    """Raise `UserError` if linear maps or embeddings of a known family are missing or of another shape.

    For a dry run, without torch: `check_tensors` knows all families and all tensors.
    """
    tensors = base_shapes(folder)
    if not any(name.startswith("model.layers.") for name in tensors):
        return  # saved under other names, which transformers translates
    wanted = _wanted(shape)
    missing = [name for name in wanted if name not in tensors]
    layers = f"model.layers.{shape.layers}."
    other = [
        f"{name} {list(tensors[name])}, not {list(size)}"
        for name, size in wanted.items()
        if name in tensors and tensors[name] != size
    ]
    more = [name for name in tensors if name.startswith(layers)]
    problems = [_problem("missing", missing), _problem("not of this model", more), _problem("of another shape", other)]
    _refuse([problem for problem in problems if problem], folder)


def _wanted(shape: Shape) -> Shapes:
    """Name → shape of the linear maps and embeddings."""
    embedding = (shape.vocab_size, shape.hidden_size)
    wanted = {"model.embed_tokens.weight": embedding}
    if not shape.tied:
        wanted["lm_head.weight"] = embedding
    for module, (inputs, outputs) in shape.adapted_modules("all-linear"):
        wanted[f"{module}.weight"] = (outputs, inputs)
    return wanted


def _problem(what: str, names: Iterable[str]) -> str:
    """A clause about tensors with the first of their names; empty if there are none."""
    names = sorted(names)
    if not names:
        return ""
    noun = "tensor is" if len(names) == 1 else "tensors are"
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"{len(names)} {noun} {what} ({shown})"


def _refuse(problems: list[str], folder: Path) -> None:
    if problems:
        fix = "copy or download the whole folder again"
        if problems == [_problem("missing", ["lm_head.weight"])]:
            fix += ", or set tie_word_embeddings to true in config.json if the model has no head of its own"
        raise UserError(
            f"model folder {folder}: its safetensors files do not fit its config.json: {'; '.join(problems)}. "
            f"Fix: {fix}."
        )
