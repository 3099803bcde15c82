"""Layers that get an adapter: linear layers of the language model, without routers.

A multimodal model's towers and projectors see no text, so their adapters would never train. The
router of a mixture of experts balances its load, which an adapter would disturb.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from loragrid.errors import UserError

# Classes of transformers in which the layers of a group are, such as LlamaAttention and LlamaMLP.
GROUPS = {
    "all-linear": re.compile(""),
    "attention": re.compile("Attention"),
    "mlp": re.compile("MLP|Mlp|FeedForward|SparseMoe|MoE$"),
}
ROUTER_CLASS = re.compile("Router")
# Routers that are a plain linear layer.
ROUTER_NAMES = frozenset({"router", "gate", "shared_expert_gate"})


def adapted_layers(model: Any, target_modules: str | Sequence[str]) -> list[str]:
    """Full names of the layers that a run's `target_modules` stands for, in the model's order.

    `model` has no adapter yet. As in PEFT, a listed name is a layer's full name or its end. Raises
    `UserError` for a group without a layer and for a name that matches none; PEFT ignores such a
    name if another one matches.
    """
    linear = dict(_linear_layers(model))
    if not isinstance(target_modules, str):
        return _named_layers(model, target_modules, known=linear)
    found = [name for name, classes in linear.items() if _in_group(classes, target_modules)]
    if not found:
        raise UserError(
            f"target_modules: the model has no linear layer of the group {target_modules}. "
            f"Fix: choose from {_short_names(linear)}."
        )
    return found


def feed_forward_layers(model: Any, layers: Sequence[str]) -> list[str]:
    """Those of `layers` that map the hidden features of an MLP back to the model's width."""
    width = model.config.get_text_config().hidden_size
    linear = dict(_linear_layers(model))
    found = []
    for name in layers:
        if name in linear and _in_group(linear[name], "mlp"):
            if model.get_submodule(name).out_features == width:
                found.append(name)
    return found


def language_model(model: Any) -> tuple[str, Any]:
    """(full name, module) of the part of a model that reads text; the name of a whole model is ""."""
    decoder = model.get_decoder()
    for name, module in model.named_modules():
        if module is decoder:
            return name, module
    return "", model


def _linear_layers(model: Any) -> Iterator[tuple[str, list[str]]]:
    """(full name, names of the classes around it) of each linear layer except the head and routers."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    prefix, decoder = language_model(model)
    for name, module in decoder.named_modules():
        # 4-bit layers are subclasses of Linear. GPT-2's linear layers are a class of transformers.
        if not isinstance(module, torch.nn.Linear | Conv1D) or module is head:
            continue
        classes = _classes_around(decoder, name)
        if not _is_router(name, classes):
            yield f"{prefix}.{name}".lstrip("."), classes


def _classes_around(decoder: Any, name: str) -> list[str]:
    parents = name.split(".")[:-1]
    paths = [".".join(parents[: depth + 1]) for depth in range(len(parents))]
    return [type(decoder.get_submodule(path)).__name__ for path in paths]


def _is_router(name: str, classes: list[str]) -> bool:
    return bool(ROUTER_NAMES & set(name.split("."))) or any(map(ROUTER_CLASS.search, classes))


def _in_group(classes: list[str], group: str) -> bool:
    return any(map(GROUPS[group].search, classes))


def _named_layers(model: Any, targets: Sequence[str], *, known: dict[str, list[str]]) -> list[str]:
    """Layers with one of the names `targets`; an embedding or the head may be named too."""
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    candidates = [name for name, module in model.named_modules() if name in known or _is_one_of(module, embeddings)]
    found, matched = [], set()
    for name in candidates:
        names = {target for target in targets if name == target or name.endswith(f".{target}")}
        if names:
            found.append(name)
            matched |= names
    for target in targets:
        if target not in matched:
            raise UserError(
                f"target_modules: the model has no layer {target!r}. "
                f"Fix: choose from {_short_names(known)}, or use all-linear."
            )
    return found


def _is_one_of(module: Any, modules: Sequence[Any]) -> bool:
    return any(module is other for other in modules)


def _short_names(layers: dict[str, list[str]]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
