"""What vLLM can score: which precisions and adapters, and the engine's settings for all adapters of a base."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.models.adapter_files import ADAPTER_WEIGHTS
from loragrid.models.adapter_shapes import PART, tensor_shapes
from loragrid.models.find_shape import find_shape
from loragrid.runtime.atomic_files import read_json
from loragrid.scoring.vllm_engine.server import MAX_LORA_RANKS
from loragrid.study.methods import METHODS
from loragrid.study.sections import ModelEntry
from loragrid.study.study_file import Study

INSTEAD = "set scoring.engine to hf, or leave it out"
# Settings of PEFT's LoRA that vLLM refuses or leaves out.
UNSERVED = ("use_dora", "lora_bias", "modules_to_save", "layer_replication")
# vLLM 0.32 computes the log-likelihoods of a prompt wrongly if it wraps one of these.
VOCABULARY = ("lm_head", "embed_tokens")


def check_precision(precision: str, where: str) -> None:
    """Raise `UserError` for a 4-bit base, which vLLM 0.32 cannot make from whole weights."""
    if precision == "4bit":
        raise UserError(f"{where}: scoring.engine: vllm loads no 4bit base. Fix: set it to hf, or precision to 16bit.")


@dataclass(frozen=True)
class ServedAdapters:
    """What an engine's adapters have at most: the largest rank, and the last parts of their modules' names.

    Both are empty for an engine without LoRA.
    """

    rank: int = 0
    modules: frozenset[str] = frozenset()

    def joined(self, other: "ServedAdapters") -> "ServedAdapters":
        """What both have at most."""
        return ServedAdapters(max(self.rank, other.rank), self.modules | other.modules)

    def include(self, other: "ServedAdapters") -> bool:
        """Whether an engine for these serves the others too."""
        return self.joined(other) == self

    def settings(self) -> dict[str, Any]:
        """The engine's settings: max_lora_rank, target_modules."""
        rank = min(rank for rank in MAX_LORA_RANKS if rank >= self.rank)
        return {"max_lora_rank": rank, "target_modules": sorted(self.modules)}


def engine_adapters(folders: Sequence[Path]) -> ServedAdapters:
    """What these adapters have at most; raises `UserError` for one that vLLM cannot serve."""
    found = ServedAdapters()
    for folder in folders:
        config = read_json(folder / "adapter_config.json")
        adapted = {PART.sub("", name).rpartition(".")[2] for name in tensor_shapes(folder / ADAPTER_WEIGHTS)}
        check_served(config, adapted, folder)
        rank = max(config["r"], *(config.get("rank_pattern") or {"": 0}).values())
        found = found.joined(ServedAdapters(rank, frozenset(adapted)))
    return found


def planned_adapters(study: Study, entry: ModelEntry, model: str) -> ServedAdapters:
    """What the adapters of a base's runs will have at most, trained or not, so that one engine serves them all.

    `entry`: the base in a precision. Empty if its shape is not known; a run that vLLM cannot serve does not count.
    """
    found = ServedAdapters()
    try:
        shape = find_shape(entry)
        for cell in study.cells:
            settings, method = cell.settings, METHODS[cell.settings.method]
            base = cell.model, study.scored_entry(cell).precision
            if shape is None or base != (model, entry.precision) or not method.adapter:
                continue
            names = {name.rpartition(".")[2] for name, _ in shape.adapted_modules(settings.target_modules)}
            # An adapter whose start was taken out of the base is saved with twice its rank.
            rank = settings.rank * (1 if method.keeps_base else 2)
            if rank <= MAX_LORA_RANKS[-1] and not names & set(VOCABULARY):
                found = found.joined(ServedAdapters(rank, frozenset(names)))
    except UserError:  # the job of the run that is wrong says so
        return ServedAdapters()
    return found


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
