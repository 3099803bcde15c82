"""The shape of a transformer, read from its configuration without torch or transformers.

Covers the decoder families below; meta_shape.py covers the others. The counts equal those of the
loaded models; tests compare them with transformers and PEFT.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loragrid.errors import UserError


@dataclass(frozen=True)
class Family:
    """Properties that a configuration does not state.

    `norms_per_layer` counts norms of the hidden size.
    """

    norms_per_layer: int = 2
    query_key_norms: bool = False
    query_key_value_bias: bool = False


FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "gemma": Family(),
    "gemma2": Family(norms_per_layer=4),
    "gemma3_text": Family(norms_per_layer=4, query_key_norms=True),
    "qwen2": Family(query_key_value_bias=True),
    "qwen3": Family(query_key_norms=True),
}
# Part of a layer's module names → the linear maps that a name of `target_modules` stands for.
MODULE_GROUPS = {"all-linear": "model.layers.", "attention": ".self_attn.", "mlp": ".mlp."}
# Families whose input and output embeddings are one matrix unless the configuration says otherwise.
TIED_BY_DEFAULT = ("gemma", "gemma2", "gemma3_text")
# Ten times those of the largest models.
MOST_LAYERS, LARGEST_SIZE = 2_000, 10_000_000
# One layer in so many attends to the whole context if the configuration lists no layer types.
FULL_ATTENTION_EVERY = {"gemma2": 2, "gemma3_text": 6}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a decoder.

    `full_attention_layers` see the whole context, the others `sliding_window` tokens.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    sliding_window: int | None
    full_attention_layers: int
    attention_bias: bool
    mlp_bias: bool

    def linears(self) -> dict[str, tuple[int, int]]:
        """Name within a layer → (inputs, outputs) of each linear map of one layer."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        hidden, inner = self.hidden_size, self.intermediate_size
        return {
            "self_attn.q_proj": (hidden, queries),
            "self_attn.k_proj": (hidden, keys),
            "self_attn.v_proj": (hidden, keys),
            "self_attn.o_proj": (queries, hidden),
            "mlp.gate_proj": (hidden, inner),
            "mlp.up_proj": (hidden, inner),
            "mlp.down_proj": (inner, hidden),
        }

    def linear_parameters(self) -> int:
        """Weights of the linear maps of all layers; 4-bit precision quantizes only these."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears().values())

    def embedding_parameters(self) -> int:
        """Weights of the input embedding and of the output head; one matrix if they are tied."""
        matrices = 1 if self.tied else 2
        return self.vocab_size * self.hidden_size * matrices

    def norm_and_bias_parameters(self) -> int:
        """Norms and biases of all layers, and the final norm."""
        family, linears = FAMILIES[self.model_type], self.linears()
        per_layer = family.norms_per_layer * self.hidden_size + 2 * self.head_dim * family.query_key_norms
        attention = [linears[f"self_attn.{name}_proj"][1] for name in "qkvo"]
        if self.attention_bias:
            per_layer += sum(attention)
        elif family.query_key_value_bias:
            per_layer += sum(attention[:3])
        if self.mlp_bias:
            per_layer += 2 * self.intermediate_size + self.hidden_size
        return self.layers * per_layer + self.hidden_size

    def active_expert_parameters(self) -> float:
        """Weights of experts that a token passes through and that are no linear maps; these families have none."""
        return 0

    def parameters(self) -> int:
        """All parameters of the model."""
        return self.linear_parameters() + self.embedding_parameters() + self.norm_and_bias_parameters()

    def tensors(self) -> list[int]:
        """Parameters of each weight matrix; the norms and biases of all layers count as one."""
        matrices = [inputs * outputs for _, (inputs, outputs) in self._layer_modules()]
        embeddings = [self.vocab_size * self.hidden_size] * (1 if self.tied else 2)
        return [*matrices, *embeddings, self.norm_and_bias_parameters()]

    def adapted_matrices(self, target_modules: str | Sequence[str]) -> list[tuple[int, int]]:
        """(inputs, outputs) of every matrix of `adapted_modules`."""
        return [size for _, size in self.adapted_modules(target_modules)]

    def adapted_modules(self, target_modules: str | Sequence[str]) -> list[tuple[str, tuple[int, int]]]:
        """(name, (inputs, outputs)) of every matrix that gets an adapter, by PEFT's rule.

        `all-linear` is every linear map but the output head, `attention` and `mlp` are those of a
        layer's part; a listed name is a full name or its end. An unknown name is a `UserError`.
        """
        if isinstance(target_modules, str):
            return self._group(target_modules)
        head, embedding = ("lm_head", self._head()), ("model.embed_tokens", self._head()[::-1])
        found, matched = [], set()
        for module, size in (*self._layer_modules(), head, embedding):
            names = [name for name in target_modules if module == name or module.endswith(f".{name}")]
            if names:
                found.append((module, size))
                matched.update(names)
        for name in target_modules:
            if name not in matched:
                known = ", ".join(dict.fromkeys(key.rsplit(".", 1)[-1] for key in self.linears()))
                raise UserError(
                    f"target_modules: a {self.model_type} model has no module {name!r}. "
                    f"Fix: choose from {known}, or use all-linear."
                )
        return found

    def is_feed_forward(self, module: str) -> bool:
        """Whether a linear map leads from the hidden features of an MLP back to the model's width."""
        return module.endswith(".down_proj")

    def _group(self, name: str) -> list[tuple[str, tuple[int, int]]]:
        part = MODULE_GROUPS[name]
        return [(module, size) for module, size in self._layer_modules() if part in module]

    def _layer_modules(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for layer in range(self.layers):
            for name, size in self.linears().items():
                yield f"model.layers.{layer}.{name}", size

    def _head(self) -> tuple[int, int]:
        return self.hidden_size, self.vocab_size


def read_shape(config: dict[str, Any], where: str) -> Shape:
    """The shape in a config.json or in the study file's `shape`, which has the same keys.

    `where` names the source in messages. Raises `UserError` for an unknown family or a missing key.
    """
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise UserError(
            f"{where}: model_type {kind!r} is not supported by the plan. Fix: use one of {', '.join(FAMILIES)}."
        )
    try:
        heads, layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
        hidden = int(config["hidden_size"])
        shape = Shape(
            model_type=kind,
            vocab_size=int(config["vocab_size"]),
            hidden_size=hidden,
            intermediate_size=int(config["intermediate_size"]),
            layers=layers,
            heads=heads,
            # The defaults are those of transformers: no grouped queries, and heads that divide the
            # hidden size.
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            tied=bool(config.get("tie_word_embeddings", kind in TIED_BY_DEFAULT)),
            sliding_window=_sliding_window(config, kind),
            full_attention_layers=_full_attention_layers(config, kind, layers),
            attention_bias=bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)),
        )
    except KeyError as error:
        raise UserError(f"{where}: key {error} is missing or not a number. Fix: give all sizes of the model.") from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{where}: a size is not a number ({error}). Fix: give all sizes of the model.") from None
    _check_sizes(shape, where)
    return shape


def _check_sizes(shape: Shape, where: str) -> None:
    """Refuse sizes that no model has: a list of a billion layers would fill the memory."""
    for name in ("layers", "heads", "kv_heads", "head_dim", "hidden_size", "intermediate_size", "vocab_size"):
        size, most = getattr(shape, name), MOST_LAYERS if name == "layers" else LARGEST_SIZE
        if not 0 < size <= most:
            raise UserError(
                f"{where}: {name} is not between 1 and {most:,} ({size:,}). Fix: give the sizes of the model."
            )


def _sliding_window(config: dict[str, Any], kind: str) -> int | None:
    window = config.get("sliding_window")
    # Qwen's configurations state a window and disable it with a second key.
    if window is None or (kind.startswith("qwen") and not config.get("use_sliding_window")):
        return None
    return int(window)


def _full_attention_layers(config: dict[str, Any], kind: str, layers: int) -> int:
    if _sliding_window(config, kind) is None:
        return layers
    if config.get("layer_types"):
        return sum(name == "full_attention" for name in config["layer_types"])
    if "full_attention_layers" in config:
        return int(config["full_attention_layers"])
    every = config.get("sliding_window_pattern") or FULL_ATTENTION_EVERY.get(kind)
    return layers // int(every) if every else 0
