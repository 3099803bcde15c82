"""Training methods: the PEFT configuration of each, and the model that it makes from a base."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError, first_line
from loragrid.models.adapter_files import is_adapter
from loragrid.models.attached_adapters import detach_adapter
from loragrid.models.target_modules import adapted_layers, feed_forward_layers, language_model
from loragrid.models.trained_weights import Trainable, check_rank
from loragrid.training.backends.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftConfig

# They move a part of the base's weights into the adapter, which then starts from it.
TAKE_FROM_BASE = ("pissa", "olora")
# Methods with a configuration of their own: its name, the field of each setting, and fixed fields.
CONFIGS: Mapping[str, tuple[str, Mapping[str, str], Mapping[str, Any]]] = {
    # The random matrices are saved too: another version of torch may draw others.
    "vera": (
        "VeraConfig",
        {"r": "rank", "vera_dropout": "dropout", "projection_prng_key": "seed"},
        {"bias": "none", "save_projection": True},
    ),
    "randlora": (
        "RandLoraConfig",
        {"r": "rank", "randlora_alpha": "alpha", "randlora_dropout": "dropout", "projection_prng_key": "seed"},
        {"bias": "none", "save_projection": True},
    ),
    "loha": ("LoHaConfig", {"r": "rank", "alpha": "alpha"}, {}),
    "lokr": ("LoKrConfig", {"r": "rank", "alpha": "alpha"}, {}),
    "hira": ("HiraConfig", {"r": "rank", "hira_dropout": "dropout"}, {}),
    "gralora": ("GraloraConfig", {"r": "rank", "alpha": "alpha", "gralora_dropout": "dropout"}, {"bias": "none"}),
    # One of the two is given, and PEFT computes the other.
    "oft": ("OFTConfig", {"oft_block_size": "rank"}, {"r": 0, "bias": "none"}),
    "miss": ("MissConfig", {"r": "rank", "miss_dropout": "dropout"}, {"bias": "none"}),
    "shira": ("ShiraConfig", {"r": "rank", "random_seed": "seed"}, {}),
    # PEFT's name for it is of modules, but it is of single inputs.
    "delora": ("DeloraConfig", {"r": "rank", "delora_lambda": "alpha", "module_dropout": "dropout"}, {"bias": "none"}),
}


def attach(model: Any, recipe: Recipe, *, folder: Path) -> Any:
    """The base with a fresh adapter, or itself with all weights of the language model trainable.

    `folder` has the base's weights in full precision. Draws random numbers: seed them before.
    """
    if recipe.method == "full":
        return _train_all(model)
    from peft import get_peft_model, get_peft_model_state_dict

    layers = adapted_layers(model, recipe.target_modules)
    _check_rank(model, recipe, layers)
    try:
        tuned = get_peft_model(model, peft_config(model, recipe, layers))
    except (ValueError, TypeError, NotImplementedError) as error:
        # Each of PEFT's methods knows other kinds of layers.
        fix = "use another method, or other target_modules"
        raise UserError(f"method {recipe.method}: not for this model ({first_line(error)}). Fix: {fix}.") from None
    if recipe.method == "loftq":
        _start_from_error(tuned, folder)
    if recipe.method in TAKE_FROM_BASE:
        # What is saved in the end is relative to this start (adapter_files.py).
        start = get_peft_model_state_dict(tuned, save_embedding_layers=False)
        tuned.start_weights = {name: value.detach().cpu().clone() for name, value in start.items()}
    return tuned


def peft_config(model: Any, recipe: Recipe, layers: Sequence[str]) -> "PeftConfig":
    """PEFT's configuration of a recipe's method on these layers of a base."""
    import peft

    method = recipe.method
    common = {"task_type": "CAUSAL_LM", "target_modules": list(layers)}
    if method == "ia3":
        return peft.IA3Config(**common, feedforward_modules=_feed_forward_pattern(model, layers))
    if method in CONFIGS:
        name, fields, fixed = CONFIGS[method]
        given = {field: getattr(recipe, setting) for field, setting in fields.items()}
        return getattr(peft, name)(**common, **given, **fixed)
    return peft.LoraConfig(
        **common,
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        bias="none",
        use_rslora=method == "rslora",
        use_dora=method == "dora",
        init_lora_weights=method if method in TAKE_FROM_BASE else True,
    )


def parameter_counts(model: Any) -> tuple[int, int]:
    """(trained, all) parameters; 4-bit weights count as weights, not as the bytes that hold them."""
    if is_adapter(model):
        return model.get_nb_trainable_parameters()
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def released(model: Any) -> Any | None:
    """The base without its adapter, or None if its weights cannot be recovered from the model."""
    # All weights were trained, or a part of them is in the adapter up to rounding.
    if not is_adapter(model) or hasattr(model, "start_weights"):
        return None
    return detach_adapter(model)


def _train_all(model: Any) -> Any:
    # The trainer changes both, in another way when it resumes (adapter_files.py).
    model.base_configs = copy.deepcopy((model.config, model.generation_config))
    _, decoder = language_model(model)
    model.requires_grad_(False)
    decoder.requires_grad_(True)
    model.get_output_embeddings().requires_grad_(True)
    return model


def _check_rank(model: Any, recipe: Recipe, layers: Sequence[str]) -> None:
    """Refuse a rank that a layer of a model of unknown shape cannot have; the plan checks the others."""
    trainable = Trainable(method=recipe.method, rank=recipe.rank, target_modules=recipe.target_modules)
    linear = [(name, model.get_submodule(name)) for name in layers]
    sizes = [(name, (layer.in_features, layer.out_features)) for name, layer in linear if hasattr(layer, "in_features")]
    check_rank(trainable, sizes)


def _feed_forward_pattern(model: Any, layers: Sequence[str]) -> str | list[str]:
    """Modules whose inputs (IA)³ scales, as in its paper; it scales the outputs of all others."""
    names = sorted({name.rpartition(".")[2] for name in feed_forward_layers(model, layers)})
    # A pattern, because PEFT would compare a list with the shortened list of all modules.
    return rf".*\.({'|'.join(names)})" if names else []


def _start_from_error(model: Any, folder: Path) -> None:
    """Start A and B from the error of the 4-bit weights (LoftQ, Li et al. 2023, one iteration).

    PEFT's `replace_lora_weights_loftq` does the same, but only on a GPU and for alpha equal to the
    rank. Raises `UserError` if the folder does not hold the layers' weights.
    """
    import bitsandbytes
    import torch
    from peft.tuners.lora import Linear4bit
    from peft.utils.loftq_utils import _SafetensorLoader
    from safetensors import SafetensorError

    weights, adapter = _SafetensorLoader(model, str(folder)), model.active_adapter
    for name, layer in model.get_base_model().named_modules():
        if not isinstance(layer, Linear4bit):
            continue
        try:
            full = weights.get_tensor(f"{name}.weight")
        except (SafetensorError, KeyError, OSError) as error:
            raise UserError(
                f"method loftq: {folder} has no weights of {name} ({first_line(error)}). Fix: use another method."
            ) from None
        quantized = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        left, sizes, right = torch.linalg.svd(full.to(quantized) - quantized, full_matrices=False)
        rank = layer.r[adapter]
        roots = sizes[:rank].sqrt()
        layer.lora_A[adapter].weight.data = roots[:, None] * right[:rank]
        layer.lora_B[adapter].weight.data = left[:, :rank] * roots / layer.scaling[adapter]
