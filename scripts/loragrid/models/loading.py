"""Base models and tokenizers, from a local folder or the hub, through one code path: safetensors only, no remote code."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError, one_line
from loragrid.models.chat_template import without_clock
from loragrid.models.shape import overflows_float16
from loragrid.records.failures import out_of_memory
from loragrid.runtime.atomic_files import read_json, sha256_file, sha256_json
from loragrid.runtime.optional_packages import check_precision
from loragrid.study.sections import ModelEntry

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MODEL_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model"]


def resolve_folder(entry: ModelEntry) -> tuple[Path, str | None]:
    """The local folder of a model entry and, for a hub model, the commit that its revision stood for.

    A hub model is downloaded on first use (configuration, tokenizer and safetensors only).
    """
    if entry.folder is not None:
        return entry.folder, None
    import httpx
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(entry.hub, revision=entry.revision, allow_patterns=MODEL_FILES)
    except (httpx.HTTPError, OSError, ValueError) as error:  # the hub's own errors are kinds of these
        raise UserError(
            f"model {entry.hub} at {entry.revision} cannot be had from the hub ({_first_line(error)}): "
            "check the id, the revision and the network"
        ) from None
    return Path(folder), Path(folder).name


def prepared_entry(entry: ModelEntry, data_folder: Path) -> ModelEntry:
    """The entry at the commit that its data were prepared with: a branch that moves on meanwhile changes no later stage."""
    if entry.folder is not None:
        return entry
    return replace(entry, revision=read_json(data_folder / "card.json")["model_commit"])


def weights_sha256(folder: Path) -> str:
    """Digest of a model folder's weights: one SHA-256 over the names and SHA-256s of its safetensors files."""
    return sha256_json([[file.name, sha256_file(file)] for file in sorted(folder.glob("*.safetensors"))])


def load_tokenizer(entry: ModelEntry) -> "PreTrainedTokenizerFast":
    """The tokenizer with the entry's chat template in place; a padding token is set if it has none."""
    folder, _ = resolve_folder(entry)
    _check_folder(folder)
    loader = _tokenizer_loader(folder)
    try:
        tokenizer = loader.from_pretrained(folder, trust_remote_code=False, use_fast=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"model folder {folder}: its tokenizer cannot be loaded ({_first_line(error)}): check its tokenizer files"
        ) from None
    except Exception as error:  # the tokenizers library raises bare Exception for a malformed tokenizer.json
        if type(error) is not Exception:
            raise
        raise UserError(
            f"model folder {folder}: tokenizer.json is malformed ({_first_line(error)}): restore it"
        ) from None
    if entry.chat_template is not None:
        tokenizer.chat_template = Path(entry.chat_template).read_text(encoding="utf-8")
    if tokenizer.chat_template is None:
        raise UserError(
            f"model folder {folder} has no chat template: set its chat_template in the study file, "
            "for example to config/chat_templates/chatml.jinja"
        )
    if isinstance(tokenizer.chat_template, str):
        # Training and scoring on different days must see the same text, whatever date the template would print.
        tokenizer.chat_template = without_clock(tokenizer.chat_template)
    if tokenizer.pad_token is None:
        # Padding is masked out everywhere, so which token it is does not matter; it must only exist.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _tokenizer_loader(folder: Path) -> Any:
    """The tokenizer class of a folder. One that asks for the general class by name gets it directly: AutoTokenizer gives
    the same, and imports two seconds' worth of architectures to find out."""
    try:
        named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["tokenizer_class"]
    except (OSError, ValueError, KeyError, TypeError):
        named = None  # AutoTokenizer knows what to make of it
    if named in ("PreTrainedTokenizerFast", "TokenizersBackend") and (folder / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def context_tokens(entry: ModelEntry) -> int | None:
    """The longest row that the model has positions for, tokens; None where its configuration names no such length."""
    from transformers import AutoConfig

    folder, _ = resolve_folder(entry)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers says in many ways that it cannot use a configuration
        raise UserError(f"model folder {folder}: {one_line(str(error))[:300]}: check its config.json") from None
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def load_base(entry: ModelEntry, *, device: str) -> "PreTrainedModel":
    """The frozen base in the entry's precision on `device` ("cpu" or "cuda"), evaluation mode.

    32bit is float32; 16bit is the device's `half_dtype`; 4bit is NF4 with double quantization, computed in that
    (QLoRA, https://arxiv.org/abs/2305.14314).
    """
    import torch
    from transformers import AutoModelForCausalLM

    check_precision(entry.precision)
    folder, _ = resolve_folder(entry)
    half = half_dtype(_check_folder(folder), device=device)
    options: dict[str, Any] = {"dtype": torch.float32 if entry.precision == "32bit" else half}
    if entry.precision == "4bit":
        options["quantization_config"] = _four_bit(half)
        options["device_map"] = {"": device}
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, use_safetensors=True, **options)
    except Exception as error:  # a folder's mistakes make the libraries raise anything, up to a division by zero
        if isinstance(error, ImportError) or out_of_memory(error):
            raise
        if type(error).__module__.split(".")[0] in ("safetensors", "safetensors_rust"):
            raise UserError(
                f"model folder {folder}: its safetensors file is broken ({_first_line(error)}): fetch it again"
            ) from None
        reason = one_line(f"{type(error).__name__}: {error}")[:300]
        raise UserError(
            f"model folder {folder} cannot be loaded ({reason}): check its config.json and safetensors files"
        ) from None
    if entry.precision == "4bit":
        keep_unpacked(model)
    else:
        model.to(device)
    return model.eval()


def keep_unpacked(model: "PreTrainedModel") -> None:
    """Keep bitsandbytes from packing 4-bit layers anew for inference, as it does on a CPU with AVX512-BF16.

    It packs in place, at the first forward pass in evaluation mode, and a packed layer passes no gradient on: a run that is
    measured on its way would train on without them, and nobody would tell (bitsandbytes 0.50.2, `matmul_4bit`). Scoring
    does without it too, so that a held-out loss is the same in training and after it.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def half_dtype(model_type: str, *, device: str) -> "torch.dtype":
    """What 16-bit and 4-bit models are computed in: bfloat16 where the device has it, else float16, and float32 for a model
    that overflows it."""
    import torch

    if device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32 if overflows_float16(model_type) else torch.float16


def precision_notes(entry: ModelEntry, *, device: str) -> tuple[str, ...]:
    """What a reader of a score must know of the precision: nothing, where it is the study file's."""
    import torch

    kind = _check_folder(resolve_folder(entry)[0])
    if entry.precision == "32bit" or half_dtype(kind, device=device) != torch.float32:
        return ()
    return (f"computed in float32: a {kind} overflows float16, and this GPU has no bfloat16",)


def choose_device() -> str:
    """ "cuda" where torch sees a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _four_bit(compute_dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def _check_folder(folder: Path) -> str:
    """The folder's model type. Refuse what must not be loaded: a folder that is no model, one that asks for remote code, one
    with pickled weights only."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"model folder {folder}: config.json cannot be read ({error}): restore it") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise UserError(f"model folder {folder}: config.json names no model_type: give a folder in Hugging Face form")
    if "auto_map" in config:
        raise UserError(
            f"model folder {folder} wants to run code of its own (auto_map in config.json), which is never done: "
            "use a model of the transformers library"
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"model folder {folder} has no .safetensors file, and pickled weights are never loaded: convert them first"
        )
    return config["model_type"]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
