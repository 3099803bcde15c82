"""Adapters on a loaded base: put on, and taken off so that the base is as it was."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, first_line


def attach_adapter(base: Any, folder: Path | str, **options: Any) -> Any:
    """The base with the adapter of a folder, in evaluation mode; `options` are PEFT's.

    Attached and not merged, as in training: see `merged`. Raises `UserError` for an adapter with a tensor too few:
    PEFT would leave that layer as it is in the base and only warn.
    """
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            model = PeftModel.from_pretrained(base, folder, **options).eval()
        except UserWarning as warning:
            raise UserError(
                f"{folder}: the adapter does not fit its base ({first_line(warning)}). "
                "Fix: copy it again, or use the base that it was trained on."
            ) from None
    keep_dtypes(model)
    return model


def detach_adapter(model: Any) -> Any | None:
    """The base without its adapters, bit by bit as it was; None if it has to be loaded again."""
    if has_quantized_ia3(model):
        # PEFT refuses to remove it.
        return None
    return model.unload()


@contextmanager
def merged(model: Any) -> Iterator[None]:
    """Within the block, LoRA's matrices are part of a float32 base's weights; afterwards all is bit by bit as it was.

    A small model writes text in two thirds of the time without them. Other adapters and bases stay as they are: half
    precisions and 4 bits would round the sum, a tied weight would change its other layer too, and a layer without a
    bias takes none.
    """
    if not _can_merge(model):
        yield
        return
    import torch

    layers = [layer.get_base_layer() for layer in adapted_layers(model)]
    # Subtracting the product again would not give the weights back exactly.
    kept = [copy.deepcopy(layer.state_dict()) for layer in layers]
    try:
        with torch.no_grad():
            model.merge_adapter()
        yield
    finally:
        model.unmerge_adapter()
        for layer, weights in zip(layers, kept, strict=True):
            layer.load_state_dict(weights)


def _can_merge(model: Any) -> bool:
    """Whether the model has a LoRA adapter that can be merged without rounding."""
    import torch

    config = getattr(model, "peft_config", {}).get(getattr(model, "active_adapter", None))
    if config is None or config.peft_type != "LORA" or model.dtype != torch.float32 or adapts_tied_weights(model):
        return False
    quantized = getattr(model.config, "quantization_config", None) is not None
    if config.lora_bias and any(
        getattr(layer.get_base_layer(), "bias", None) is None for layer in adapted_layers(model)
    ):
        return False
    return not quantized and not torch.is_autocast_enabled(model.device.type)


def adapted_layers(model: Any) -> Iterator[Any]:
    """PEFT's layers around those of the base."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (layer for layer in model.modules() if isinstance(layer, BaseTunerLayer))


def adapts_tied_weights(model: Any) -> bool:
    """Whether the embedding and the head have one weight, and one of them has an adapter."""
    network = model.get_base_model()
    pair = [network.get_input_embeddings(), network.get_output_embeddings()]
    adapted = [id(layer) for layer in adapted_layers(model)]
    tied = network.config.get_text_config().tie_word_embeddings
    return tied and any(id(layer) in adapted for layer in pair)


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
