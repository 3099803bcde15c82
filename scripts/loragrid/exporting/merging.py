"""The merged form: one model whose weights hold what the run learned."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import Failed, UserError, first_line
from loragrid.exporting.exported_run import ExportedRun
from loragrid.models.attached_adapters import adapted_layers, adapts_tied_weights, attach_adapter
from loragrid.models.chat_templates.end_tokens import end_tokens
from loragrid.models.float16_range import overflows_float16
from loragrid.models.loading import load_base, load_stored, load_tokenizer, torch_device
from loragrid.models.model_files import resolve_folder
from loragrid.runtime.progress_lines import ProgressLines

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class MergedFacts:
    """How a merged model was made: the dtype of its weights, and the weights that the adapter was merged into."""

    dtype: str
    merged_into: str


def write_merged(run: ExportedRun, folder: Path, dtype: str | None = None) -> MergedFacts:
    """Write the merged model, its tokenizer and its generation settings to `folder`, as transformers reads them.

    Each layer is merged in float32 and rounded once, to `dtype` ("float16"), or if it is None to the base's own 16-bit
    dtype. Raises `UserError` for an adapter that PEFT cannot merge, `Failed` for weights that are not finite.
    """
    import torch

    model, merged_into = _base_to_merge(run)
    wanted = sixteen_bits(model) if dtype is None else getattr(torch, dtype)
    with ProgressLines(f"[{run.name}] merging", total=1, items="models"):
        if not run.is_whole:
            model = merge_adapter(model, run.trained, wanted)
        # Merging has rounded the layers with an adapter already.
        model.to(wanted)
        for name, weight in model.named_parameters():
            if not torch.isfinite(weight).all():
                raise Failed(f"{run.name}: {name} is not finite in {wanted} once it is merged")
        tokenizer = load_tokenizer(run.entry)
        _name_end_tokens(model, tokenizer)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        # safetensors writes through a temporary file that only its owner may read.
        shutil.copymode(folder / "config.json", file)
    return MergedFacts(str(wanted).removeprefix("torch."), merged_into)


def sixteen_bits(model: "PreTrainedModel") -> "torch.dtype":
    """The model's own 16-bit dtype; for another one float16, or bfloat16 for a family that overflows float16.

    float16 has three more digits of a weight than bfloat16.
    """
    import torch

    if model.dtype in (torch.float16, torch.bfloat16):
        return model.dtype
    return torch.bfloat16 if overflows_float16(model.config.model_type) else torch.float16


def merge_adapter(base: "PreTrainedModel", folder: Path, dtype: "torch.dtype") -> "PreTrainedModel":
    """The base with the adapter of `folder` in its weights; those of the adapted layers are in `dtype`."""
    model = attach_adapter(base, folder)
    _untie_adapted(model)
    for layer in adapted_layers(model):
        # One layer at a time: a whole model in float32 may not fit.
        layer.get_base_layer().float()
        try:
            layer.merge(safe_merge=True)
        except (NotImplementedError, AttributeError) as error:
            kind = model.peft_config[model.active_adapter].peft_type
            raise UserError(
                f"method: PEFT cannot merge {kind} adapters ({first_line(error)}). "
                "Fix: export a run of another method; this one's adapter folder can be used as it is."
            ) from None
        except ValueError as error:
            raise Failed(f"the adapter in {folder} cannot be merged ({first_line(error)})") from None
        layer.get_base_layer().to(dtype)
    return model.unload()


def _untie_adapted(model: Any) -> None:
    """Give a tied head its own weights if it or the embedding is adapted: merging must not change the other."""
    import torch

    if not adapts_tied_weights(model):
        return
    network = model.get_base_model()
    head = network.get_output_embeddings()
    # PEFT's layer has the weight in the one that it wraps.
    head = getattr(head, "base_layer", head)
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    network.config.get_text_config().tie_word_embeddings = network.config.tie_word_embeddings = False


def _base_to_merge(run: ExportedRun) -> tuple["PreTrainedModel", str]:
    """The model that the adapter is merged into, or the trained model itself; and what it is."""
    if run.is_whole:
        return load_stored(run.trained), "nothing: all weights were trained"
    if run.record.method == "loftq":
        # The adapter begins as the error of the 4-bit weights: on the 16-bit ones it would be added twice.
        base = load_base(run.entry, device="cpu").dequantize()
        return base, "the 4-bit base that it was trained on, dequantised, for LoftQ corrects that base's error"
    rounded = run.entry.precision == "16bit"
    if rounded:
        # Training rounded a base stored in 32 bits, and the adapter was trained on the rounded weights.
        base = load_base(run.entry, device=torch_device(), place=False)
    else:
        folder, _ = resolve_folder(run.entry)
        base = load_stored(folder)
    if getattr(base, "is_quantized", False):
        return base.dequantize(), "the base as it is stored, quantised, with its weights dequantised"
    into = f"the base in {_dtype_name(base)}"
    if run.entry.precision == "4bit":
        into += ", though it was trained on the 4-bit one"
    return base, f"{into}, as it was trained on" if rounded else into


def _dtype_name(model: "PreTrainedModel") -> str:
    return str(model.dtype).removeprefix("torch.")


def _name_end_tokens(model: Any, tokenizer: Any) -> None:
    """Let `generate` end at the tokens at which the study's answers ended."""
    ends = end_tokens(model, tokenizer)
    model.generation_config.eos_token_id = list(ends) if len(ends) > 1 else ends[0]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
