"""Base models and tokenizers from a local folder or the hub: safetensors only, no remote code."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError, first_line, one_line
from loragrid.models.base_checks.tensors import check_report
from loragrid.models.chat_templates.dates import all_with_fixed_date
from loragrid.models.float16_range import overflows_float16
from loragrid.models.model_files import check_model_folder, own_code_error, resolve_folder
from loragrid.records.failures import out_of_memory
from loragrid.runtime.optional_packages import check_precision
from loragrid.runtime.visible_gpus import check_torch_sees_gpu
from loragrid.study.sections import ModelEntry

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def load_tokenizer(entry: ModelEntry) -> "PreTrainedTokenizerFast":
    """The tokenizer with the entry's chat template and a padding token.

    Raises `UserError` for broken tokenizer files and for a model without a chat template.
    """
    folder, _ = resolve_folder(entry)
    check_model_folder(folder)
    tokenizer = _read_tokenizer(folder)
    if entry.chat_template is not None:
        tokenizer.chat_template = _template_text(Path(entry.chat_template))
    if tokenizer.chat_template is None:
        raise UserError(
            f"model folder {folder}: no chat template. Fix: set the model's chat_template in the study "
            "file, for example to config/chat_templates/chatml.jinja."
        )
    # Data, training, scoring and app run on different days and must see the same text. A tokenizer that is saved
    # with an adapter keeps it: the adapter is used with the text that it was trained on.
    tokenizer.chat_template = all_with_fixed_date(tokenizer.chat_template)
    if tokenizer.pad_token is None:
        # Padding is masked everywhere, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _template_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"chat_template {file}: not read ({first_line(error)}). Fix: save it as UTF-8.") from None


def _read_tokenizer(folder: Path) -> "PreTrainedTokenizerFast":
    try:
        tokenizer = _tokenizer_class(folder).from_pretrained(folder, trust_remote_code=False, use_fast=True)
        if not isinstance(tokenizer.model_max_length, int | float):
            raise TypeError(f"model_max_length is not a number: {tokenizer.model_max_length!r}")
        return tokenizer
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if "trust_remote_code" in str(error):
            fix = "set tokenizer_class in it to PreTrainedTokenizerFast if the folder has a tokenizer.json"
            raise own_code_error(folder, "tokenizer_config.json", fix=fix) from None
        raise UserError(
            f"model folder {folder}: the tokenizer cannot be loaded ({first_line(error)}). "
            "Fix: check its tokenizer files."
        ) from None
    except Exception as error:
        # The tokenizers library raises bare Exception for a malformed tokenizer.json; a subclass is
        # a bug.
        if type(error) is not Exception:
            raise
        raise UserError(
            f"model folder {folder}: tokenizer.json is malformed ({first_line(error)}). Fix: restore the file."
        ) from None


def _tokenizer_class(folder: Path) -> Any:
    """The general tokenizer class if tokenizer_config.json names it, else AutoTokenizer.

    AutoTokenizer returns the same class but imports every architecture first, which takes two
    seconds.
    """
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        name = config["tokenizer_class"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None  # AutoTokenizer has its own rules for an incomplete folder
    is_general = name in ("PreTrainedTokenizerFast", "TokenizersBackend")
    if is_general and (folder / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def context_tokens(entry: ModelEntry) -> int | None:
    """The model's context length, tokens; None if its configuration does not state one."""
    folder, _ = resolve_folder(entry)
    stated = _stated_context(folder)
    if stated is not None:
        return stated
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers has no common class for configuration errors
        raise UserError(f"model folder {folder}: {one_line(str(error))[:300]}. Fix: check its config.json.") from None
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def _stated_context(folder: Path) -> int | None:
    """The context length in config.json of a family that transformers knows, None if it has none.

    AutoConfig returns the same number but imports every architecture first, which takes seconds.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if check_model_folder(folder) not in CONFIG_MAPPING_NAMES:
        return None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stated = config.get("max_position_embeddings")
    return stated if isinstance(stated, int) else None


def load_base(entry: ModelEntry, *, device: str, place: bool = True) -> "PreTrainedModel":
    """The base in the entry's precision on `device` ("cpu" or "cuda"), in evaluation mode.

    32bit is float32; 16bit is the device's `half_dtype`; 4bit is NF4 with double quantization and
    computes in `half_dtype` (QLoRA, Dettmers et al. 2023, https://arxiv.org/abs/2305.14314).
    Without `place` it stays in the machine's memory, for a device that does not hold it whole.
    Raises `UserError` for a broken model folder; out-of-memory errors pass through.
    """
    import torch

    check_precision(entry.precision)
    folder, _ = resolve_folder(entry)
    half = half_dtype(check_model_folder(folder), device=device)
    options: dict[str, Any] = {"dtype": half}
    if entry.precision == "32bit":
        options["dtype"] = torch.float32
    if entry.precision == "4bit":
        options["quantization_config"] = _four_bit(half)
        options["device_map"] = {"": device}
    model = _read_weights(folder, options)
    if entry.precision == "4bit":
        # bitsandbytes has placed the model; a quantized model refuses `to`.
        keep_unpacked(model)
    elif place:
        model.to(device)
    return model.eval()


def load_stored(folder: Path) -> "PreTrainedModel":
    """A whole model in the dtype of its files, on the CPU, in evaluation mode; raises as `load_base`."""
    check_model_folder(folder)
    return _read_weights(folder, {"dtype": "auto"}).eval()


def _read_weights(folder: Path, options: dict[str, Any]) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            # For the report, which names each tensor: any mismatch is refused below.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        # A wrong config.json can raise anything, up to a ZeroDivisionError. A missing package and
        # too little memory are not the folder's fault; the callers report them.
        if isinstance(error, ImportError) or out_of_memory(error):
            raise
        if type(error).__module__.split(".")[0] in ("safetensors", "safetensors_rust"):
            raise UserError(
                f"model folder {folder}: a safetensors file is broken ({first_line(error)}). "
                "Fix: download or copy it again."
            ) from None
        reason = one_line(f"{type(error).__name__}: {error}")[:300]
        raise UserError(
            f"model folder {folder}: the model cannot be loaded ({reason}). "
            "Fix: check its config.json and safetensors files."
        ) from None
    check_report(report, folder)
    return model


def _four_bit(compute_dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def keep_unpacked(model: "PreTrainedModel") -> None:
    """Stop bitsandbytes from repacking 4-bit layers for inference (on CPUs with AVX512-BF16).

    It repacks in place at the first forward pass in evaluation mode, and a repacked layer passes no
    gradient (bitsandbytes 0.50.2, `matmul_4bit`): a run evaluated during training would silently
    train without those layers. Scoring is unpacked too, so that a held-out loss is the same in both
    stages.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def half_dtype(model_type: str, *, device: str) -> "torch.dtype":
    """The dtype that 16-bit and 4-bit models compute in.

    bfloat16 if the device supports it; else float16, or float32 for a model that overflows float16.
    """
    import torch

    # PyTorch also emulates bfloat16 on GPUs without it, such as a T4; float16 is the faster choice
    # there.
    if device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    if overflows_float16(model_type):
        return torch.float32
    return torch.float16


def precision_notes(entry: ModelEntry, *, device: str) -> tuple[str, ...]:
    """Notes for the score record if the model computes in another precision than the study file's."""
    import torch

    folder, _ = resolve_folder(entry)
    model_type = check_model_folder(folder)
    if entry.precision == "32bit" or half_dtype(model_type, device=device) != torch.float32:
        return ()
    return (f"computed in float32: a {model_type} overflows float16, and this GPU has no bfloat16",)


def torch_device() -> str:
    """ "cuda" if torch sees a GPU, else "cpu"; raises `UserError` if the driver sees one and torch does not."""
    import torch

    # Training on the CPU instead, in silence, would take days.
    check_torch_sees_gpu()
    return "cuda" if torch.cuda.is_available() else "cpu"
