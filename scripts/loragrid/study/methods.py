"""The training methods: which settings each of them has, and what it cannot be combined with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LORA_SETTINGS = frozenset({"rank", "alpha", "dropout", "target_modules"})
# Settings of an adapter. A method that lacks one has no value for it.
ADAPTER_SETTINGS = LORA_SETTINGS | {"learning_rate_ratio"}
WHOLE = ("16bit", "32bit")  # precisions in which a base has its weights as they are


@dataclass(frozen=True)
class Method:
    """One way to train.

    `settings`: those of `ADAPTER_SETTINGS` that it has; `precisions`: those of a base that it can
    train; `unsloth`: whether that backend trains it; `adapter`: whether only an adapter is trained;
    `keeps_base`: whether training leaves the base's weights as they are; `starts_as_base`: whether the
    untrained model computes exactly as the base does; `vllm`: whether that engine can score what it saves.
    """

    settings: frozenset[str]
    precisions: tuple[str, ...] = ("4bit", "16bit", "32bit")
    unsloth: bool = False
    adapter: bool = True
    keeps_base: bool = True
    starts_as_base: bool = False
    vllm: bool = False


# unsloth patches plain LoRA layers; its kernels know no other adapter. vLLM serves plain LoRA, which PiSSA and OLoRA
# are too once they are saved, and whole models.
METHODS: Mapping[str, Method] = {
    "lora": Method(LORA_SETTINGS, unsloth=True, starts_as_base=True, vllm=True),
    "rslora": Method(LORA_SETTINGS, unsloth=True, starts_as_base=True, vllm=True),
    "lora_plus": Method(LORA_SETTINGS | {"learning_rate_ratio"}, unsloth=True, starts_as_base=True, vllm=True),
    "dora": Method(LORA_SETTINGS),
    # PiSSA takes the singular vectors of the weights themselves, which a 4-bit base does not have.
    "pissa": Method(LORA_SETTINGS, precisions=WHOLE, keeps_base=False, vllm=True),
    "olora": Method(LORA_SETTINGS, precisions=WHOLE, keeps_base=False, vllm=True),
    # LoftQ starts from the error that the 4-bit base makes.
    "loftq": Method(LORA_SETTINGS, precisions=("4bit",)),
    "vera": Method(frozenset({"rank", "dropout", "target_modules"}), starts_as_base=True),
    "ia3": Method(frozenset({"target_modules"}), starts_as_base=True),
    # PEFT adds a whole matrix to the weights, or takes their norms: not those of a 4-bit base.
    "loha": Method(frozenset({"rank", "alpha", "target_modules"}), precisions=WHOLE),
    "lokr": Method(frozenset({"rank", "alpha", "target_modules"}), precisions=WHOLE),
    "shira": Method(frozenset({"rank", "target_modules"}), precisions=WHOLE),
    "delora": Method(LORA_SETTINGS, precisions=WHOLE),
    # On a 4-bit base PEFT's layer returns float32, which the next layer of a 16-bit model refuses.
    "randlora": Method(LORA_SETTINGS, precisions=WHOLE),
    "hira": Method(frozenset({"rank", "dropout", "target_modules"})),
    "gralora": Method(LORA_SETTINGS),
    "oft": Method(frozenset({"rank", "target_modules"})),
    "miss": Method(frozenset({"rank", "dropout", "target_modules"})),
    "full": Method(frozenset(), precisions=WHOLE, adapter=False, keeps_base=False, starts_as_base=True, vllm=True),
    "none": Method(frozenset(), adapter=False, starts_as_base=True, vllm=True),
}


def point_problem(point: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """(key, what is wrong, fix) if the settings of a run exclude each other, else None."""
    name = point["method"]
    method = METHODS[name]
    if point["precision"] not in method.precisions:
        allowed = " or ".join(method.precisions)
        return (
            "precision",
            f"method {name} cannot train a {point['precision']} base",
            f"use {allowed}, or another method",
        )
    if point["backend"] == "unsloth" and not method.unsloth and name != "none":
        return "backend", f"unsloth does not train the method {name}", "set backend to trl or auto"
    return None


def has_setting(method: str, name: str) -> bool:
    """Whether a method has a setting; settings that are not of an adapter belong to all of them."""
    return name not in ADAPTER_SETTINGS or name in METHODS[method].settings


def not_of_method(name: str, given: Mapping[str, Any]) -> str | None:
    """The first setting in `given` that the method does not have, or None."""
    foreign = sorted((ADAPTER_SETTINGS - METHODS[name].settings) & given.keys())
    return foreign[0] if foreign else None
