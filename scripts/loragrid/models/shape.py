"""The shape of a transformer: what its configuration tells before any weight is there. Imports neither torch nor transformers.

Covers the decoder families below; the counts equal those of the loaded models (tests compare them with transformers
and PEFT).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.runtime.atomic_files import read_json
from loragrid.study.sections import ModelEntry


@dataclass(frozen=True)
class Family:
    """What a configuration does not say: norms of the hidden size per layer, norms of query and key, biases."""

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
# Families whose input and output embeddings are one matrix unless their configuration says otherwise.
TIED_BY_DEFAULT = ("gemma", "gemma2", "gemma3_text")
# One layer in so many attends to the whole context where the configuration lists no layer types.
FULL_ATTENTION_EVERY = {"gemma2": 2, "gemma3_text": 6}


def overflows_float16(model_type: str) -> bool:
    """Gemma 3's activations grow past what float16 holds, and its answers become noise (https://unsloth.ai/blog/gemma3): where
    there is no bfloat16, it is computed in float32."""
    return model_type.startswith("gemma3")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a decoder. `full_attention_layers` see the whole context, the others only `sliding_window` tokens."""

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
        """Name inside a layer → (inputs, outputs) of each linear map of one layer."""
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
        """Weights of the linear maps of all layers: what 4-bit precision quantises."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears().values())

    def embedding_parameters(self) -> int:
        """Weights of the input embedding and of the output head; one matrix where they are tied."""
        return self.vocab_size * self.hidden_size * (1 if self.tied else 2)

    def small_parameters(self) -> int:
        """Norms and biases."""
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

    def parameters(self) -> int:
        """All parameters of the model."""
        return self.linear_parameters() + self.embedding_parameters() + self.small_parameters()

    def adapted(self, target_modules: str | Sequence[str]) -> list[tuple[int, int]]:
        """(inputs, outputs) of every matrix that gets an adapter, by PEFT's rule: `all-linear` is every linear map but
        the output head; a listed name is a whole module name or its end. A name that matches nothing is a `UserError`."""
        if target_modules == "all-linear":
            return [size for _, size in self._modules()]
        found, matched = [], set()
        for module, size in (*self._modules(), ("lm_head", self._head()), ("model.embed_tokens", self._head()[::-1])):
            names = [name for name in target_modules if module == name or module.endswith(f".{name}")]
            if names:
                found.append(size)
                matched.update(names)
        for name in target_modules:
            if name not in matched:
                known = ", ".join(key.rsplit(".", 1)[-1] for key in self.linears())
                raise UserError(
                    f"training.target_modules: a {self.model_type} model has no module {name!r}: take some of {known}, "
                    "or all-linear"
                )
        return found

    def adapter_tensors(self, *, rank: int, target_modules: str | Sequence[str]) -> list[int]:
        """Parameters of each trained matrix: A (rank × inputs) and B (outputs × rank) of every adapted one."""
        return [rank * side for size in self.adapted(target_modules) for side in size]

    def _modules(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for layer in range(self.layers):
            for name, size in self.linears().items():
                yield f"model.layers.{layer}.{name}", size

    def _head(self) -> tuple[int, int]:
        return self.hidden_size, self.vocab_size


def read_shape(config: dict[str, Any], where: str) -> Shape:
    """The shape that a config.json (or the study file's `shape`, which has the same keys) tells; `where` is for complaints."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise UserError(f"{where}: model_type {kind!r} is not one that the plan knows: {', '.join(FAMILIES)}")
    try:
        heads, layers, hidden = (
            int(config[key]) for key in ("num_attention_heads", "num_hidden_layers", "hidden_size")
        )
        shape = Shape(
            model_type=kind,
            vocab_size=int(config["vocab_size"]),
            hidden_size=hidden,
            intermediate_size=int(config["intermediate_size"]),
            layers=layers,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            tied=bool(config.get("tie_word_embeddings", kind in TIED_BY_DEFAULT)),
            sliding_window=_window(config, kind),
            full_attention_layers=_full_attention_layers(config, kind, layers),
            attention_bias=bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: key {error} is missing or no number: a plan needs the model's whole shape") from None
    return shape


def _window(config: dict[str, Any], kind: str) -> int | None:
    window = config.get("sliding_window")
    # Qwen's configurations give a window and switch it off beside it.
    return None if window is None or (kind.startswith("qwen") and not config.get("use_sliding_window")) else int(window)


def _full_attention_layers(config: dict[str, Any], kind: str, layers: int) -> int:
    if _window(config, kind) is None:
        return layers
    if config.get("layer_types"):
        return sum(name == "full_attention" for name in config["layer_types"])
    if "full_attention_layers" in config:
        return int(config["full_attention_layers"])
    every = config.get("sliding_window_pattern") or FULL_ATTENTION_EVERY.get(kind)
    return layers // int(every) if every else 0


def find_shape(entry: ModelEntry, *, network: bool = False) -> Shape | None:
    """The shape of a study file's model entry, from where `find_config` finds it; None when nothing tells it."""
    found = find_config(entry, network=network)
    return None if found is None else read_shape(*found)


def find_config(entry: ModelEntry, *, network: bool = False) -> tuple[Mapping[str, Any], str] | None:
    """What a study file's `shape`, a folder's config.json or the hub's says of a model entry, and where it stands.

    Without `network` only what earlier downloads left is looked at; None when nothing is there.
    """
    if entry.folder is not None:
        file = entry.folder / "config.json"
        return read_json(file), str(file)
    if entry.shape is not None:
        return entry.shape, f"shape of {entry.hub}"
    file = _hub_config(entry.hub, entry.revision, network)
    return None if file is None else (read_json(file), f"config.json of {entry.hub}")


@cache
def _hub_config(hub: str, revision: str, network: bool) -> Path | None:
    import httpx
    import huggingface_hub

    try:
        if not network:
            found = huggingface_hub.try_to_load_from_cache(hub, "config.json", revision=revision)
            return Path(found) if isinstance(found, str) else None
        return Path(huggingface_hub.hf_hub_download(hub, "config.json", revision=revision))
    except (httpx.HTTPError, OSError, ValueError) as error:  # the hub's own errors are kinds of these
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model {hub}: its config.json cannot be had from the hub ({first_line}): write its shape into the study file"
        ) from None
