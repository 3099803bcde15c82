"""The shape of any decoder that transformers knows, counted on torch's meta device: no weights, no memory.

Building takes seconds and imports torch, so shapes are kept in a folder of the user's cache.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, first_line
from loragrid.models.shape import MODULE_GROUPS, Shape
from loragrid.paths import user_cache
from loragrid.runtime.atomic_files import read_json, write_json

# Families that cannot be trained here, and why.
REFUSED = {
    "granitemoe": "its experts are not linear layers that an adapter could train, and its loss fails in training",
}
# Names under which configurations hold the experts of a token and of a layer.
TOKEN_EXPERTS = ("num_experts_per_tok", "top_k_experts")
LAYER_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
VERSION = 1  # of the kept files


@dataclass(frozen=True, kw_only=True)
class ListedShape(Shape):
    """A shape whose linear maps are listed one by one.

    `modules`: (full name, inputs, outputs, groups of `target_modules`); `experts`: weights of all
    experts that are no linear maps, of which a token uses the part `active`.
    """

    modules: tuple[tuple[str, int, int, tuple[str, ...]], ...]
    total: int
    experts: int
    active: float

    def linears(self) -> dict[str, tuple[int, int]]:
        """Full name → (inputs, outputs) of every linear map."""
        return {name: (inputs, outputs) for name, inputs, outputs, _ in self.modules}

    def linear_parameters(self) -> int:
        """Weights of all linear maps; 4-bit precision quantizes only these."""
        return sum(inputs * outputs for _, inputs, outputs, _ in self.modules)

    def norm_and_bias_parameters(self) -> int:
        """Everything but linear maps and embeddings, experts and the towers of other inputs included."""
        return self.total - self.linear_parameters() - self.embedding_parameters()

    def active_expert_parameters(self) -> float:
        """Weights of experts that a token passes through and that are no linear maps."""
        return self.experts * self.active

    def is_feed_forward(self, module: str) -> bool:
        """Whether a linear map leads from the hidden features of an MLP back to the model's width."""
        found = [(outputs, groups) for name, _, outputs, groups in self.modules if name == module]
        return any(outputs == self.hidden_size and "mlp" in groups for outputs, groups in found)

    def _group(self, name: str) -> list[tuple[str, tuple[int, int]]]:
        return [(module, (inputs, outputs)) for module, inputs, outputs, groups in self.modules if name in groups]

    def _layer_modules(self) -> Iterator[tuple[str, tuple[int, int]]]:
        yield from self.linears().items()


def listed_shape(config: Mapping[str, Any], where: str, *, build: bool) -> ListedShape:
    """The shape of a family that shape.py does not know.

    `where` names the configuration in messages. Without `build` it must have been built before.
    Raises `UserError` for a family that transformers does not know or that cannot be trained.
    """
    family = config.get("model_type")
    if family in REFUSED:
        raise UserError(f"{where}: a {family} model is not planned: {REFUSED[family]}. Fix: use another model.")
    text = json.dumps(dict(config), sort_keys=True, default=str)
    file = user_cache() / "shapes" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    kept = _read_kept(file)
    if kept is not None:
        return kept
    if not build:
        raise UserError(f"{where}: the shape of a {family} model is not known yet. Fix: run the plan once.")
    shape = _built(text, where)
    write_json(file, {"version": VERSION, "shape": dataclasses.asdict(shape)})
    return shape


def _read_kept(file: Path) -> ListedShape | None:
    if not file.is_file():
        return None
    kept = read_json(file)
    if kept.get("version") != VERSION:
        return None
    modules = tuple((*module, tuple(groups)) for *module, groups in kept["shape"]["modules"])
    return ListedShape(**kept["shape"] | {"modules": modules})


@cache
def _built(text: str, where: str) -> ListedShape:
    """The shape of a configuration, given as JSON, from the model that transformers builds of it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    given = json.loads(text)
    family = given.pop("model_type", None)
    try:
        config = AutoConfig.for_model(family, **given)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        # Each architecture raises its own errors for sizes that it does not expect.
        raise UserError(
            f"{where}: transformers cannot build a model of the family {family!r} ({first_line(error)}). "
            "Fix: check the configuration, or use another model."
        ) from None
    return _counted(model, config.get_text_config())


def _counted(model: Any, config: Any) -> ListedShape:
    modules = _modules(model)
    mlp_inputs = [inputs for _, inputs, _, groups in modules if "mlp" in groups]
    experts = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 3)
    active = _first(config, TOKEN_EXPERTS) / max(1, _first(config, LAYER_EXPERTS)) if experts else 0.0
    heads = config.num_attention_heads
    full, window = _attention(config)
    return ListedShape(
        model_type=config.model_type,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        # The widest input of an MLP's layer is that of its way back; experts are as wide as a token's together.
        intermediate_size=max(mlp_inputs) if mlp_inputs else _expert_width(config),
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        tied=bool(model.get_input_embeddings().weight is model.get_output_embeddings().weight),
        sliding_window=window,
        full_attention_layers=full,
        attention_bias=False,
        mlp_bias=False,
        modules=modules,
        total=sum(parameter.numel() for parameter in model.parameters()),
        experts=experts,
        active=active,
    )


def _modules(model: Any) -> tuple[tuple[str, int, int, tuple[str, ...]], ...]:
    """The linear layers that may get an adapter, as training finds them."""
    from loragrid.models.target_modules import adapted_layers

    of_group: dict[str, set[str]] = {}
    for group in MODULE_GROUPS:
        try:
            of_group[group] = set(adapted_layers(model, group))
        except UserError:  # The model has no layer of that group.
            of_group[group] = set()
    found = []
    for name in adapted_layers(model, "all-linear"):
        outputs, inputs = model.get_submodule(name).weight.shape
        found.append((name, inputs, outputs, tuple(group for group, names in of_group.items() if name in names)))
    return tuple(found)


def _attention(config: Any) -> tuple[int, int | None]:
    """(layers that attend to everything, window of the others); a layer without attention sees one token."""
    types = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if types:
        full = sum(name == "full_attention" for name in types)
        others = [name for name in types if name != "full_attention"]
        return full, (window if "sliding_attention" in others else 1) if others else None
    return (0, window) if window else (config.num_hidden_layers, None)


def _expert_width(config: Any) -> int:
    width = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    return width * _first(config, TOKEN_EXPERTS)


def _first(config: Any, names: tuple[str, ...]) -> int:
    return next((getattr(config, name) for name in names if getattr(config, name, None)), 1)
