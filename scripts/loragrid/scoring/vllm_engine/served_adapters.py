"""What vLLM can score: which precisions and adapters, and the engine's settings for all adapters of a base."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.models.adapter_files import ADAPTER_WEIGHTS
from loragrid.models.adapter_shapes import PART, tensor_shapes
from loragrid.runtime.atomic_files import read_json
from loragrid.scoring.vllm_engine.server import MAX_LORA_RANKS

INSTEAD = "set scoring.engine to hf, or leave it out"
# Settings of PEFT's LoRA that vLLM refuses or leaves out.
UNSERVED = ("use_dora", "lora_bias", "modules_to_save", "layer_replication")
# vLLM 0.32 computes the log-likelihoods of a prompt wrongly if it wraps one of these.
VOCABULARY = ("lm_head", "embed_tokens")


def check_precision(precision: str, where: str) -> None:
    """Raise `UserError` for a 4-bit base, which vLLM 0.32 cannot make from whole weights."""
    if precision == "4bit":
        raise UserError(f"{where}: scoring.engine: vllm loads no 4bit base. Fix: set it to hf, or precision to 16bit.")


def engine_adapters(folders: Sequence[Path]) -> dict[str, Any]:
    """The engine's settings for these adapters: adapters, max_lora_rank, target_modules.

    Raises `UserError` for an adapter that vLLM cannot serve.
    """
    ranks, modules = [1], set()
    for folder in folders:
        config = read_json(folder / "adapter_config.json")
        adapted = {PART.sub("", name).rpartition(".")[2] for name in tensor_shapes(folder / ADAPTER_WEIGHTS)}
        check_served(config, adapted, folder)
        ranks += [config["r"], *(config.get("rank_pattern") or {}).values()]
        modules |= adapted
    return {
        "adapters": len(folders),
        "max_lora_rank": min(rank for rank in MAX_LORA_RANKS if rank >= max(ranks)),
        "target_modules": sorted(modules),
    }


def check_served(config: dict[str, Any], adapted: set[str], folder: Path) -> None:
    """Raise `UserError` for an adapter that vLLM cannot serve.

    `adapted`: the last parts of the names of its modules.
    """
    if config.get("peft_type") != "LORA":
        what = f"not LoRA ({config.get('peft_type')})"
    elif unserved := [key for key in UNSERVED if config.get(key)]:
        what = f"its {unserved[0]} is set"
    elif found := [name for name in VOCABULARY if name in adapted]:
        what = f"it adapts {found[0]}"
    elif (rank := max(config["r"], *(config.get("rank_pattern") or {"": 0}).values())) > MAX_LORA_RANKS[-1]:
        what = f"its rank {rank} is above {MAX_LORA_RANKS[-1]}"
    else:
        return
    raise UserError(f"{folder}: scoring.engine: vllm cannot serve this adapter ({what}). Fix: {INSTEAD}.")
