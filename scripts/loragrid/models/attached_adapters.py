"""Adapters on a loaded base: put on, and taken off so that the base is as it was."""

from pathlib import Path
from typing import Any


def attach_adapter(base: Any, folder: Path | str, **options: Any) -> Any:
    """The base with the adapter of a folder, in evaluation mode; `options` are PEFT's.

    Attached and not merged: merging rounds, and could not be undone exactly.
    """
    from peft import PeftModel

    model = PeftModel.from_pretrained(base, folder, **options).eval()
    keep_dtypes(model)
    return model


def detach_adapter(model: Any) -> Any | None:
    """The base without its adapters, bit by bit as it was; None if it has to be loaded again."""
    if has_quantized_ia3(model):
        # PEFT refuses to remove it.
        return None
    return model.unload()


def has_quantized_ia3(model: Any) -> bool:
    """Whether the adapters are (IA)³ on a 4-bit base."""
    config = model.peft_config[model.active_adapter]
    return config.peft_type == "IA3" and getattr(model.get_base_model(), "is_loaded_in_4bit", False)


def keep_dtypes(model: Any) -> None:
    """Let (IA)³ on a 4-bit base return the dtype that it is given.

    peft 0.21 returns float32 there, which the attention of a 16-bit model refuses to mix.
    """
    if not has_quantized_ia3(model):
        return
    from peft.tuners.ia3 import IA3Layer

    for layer in model.modules():
        if isinstance(layer, IA3Layer) and not layer._forward_hooks:
            layer.register_forward_hook(lambda _, inputs, output: output.to(inputs[0].dtype))
