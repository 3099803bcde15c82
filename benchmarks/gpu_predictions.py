"""Predictions for a GPU run: its setting, the planned memory, and the share of the card's peak that it reached."""

from dataclasses import dataclass, replace
from pathlib import Path

from loragrid.models.trained_weights import Trainable
from loragrid.study.sections import ModelEntry

MOST_TOKENS, MEAN_TOKENS = 2048, 550


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained: shape of the base, precision, and the cell's own settings."""

    shape: str
    precision: str
    per_device: int
    packing: bool
    dtype: str
    rank: int = 16
    accumulation: int = 4

    def with_cell(self, *, rank: int, accumulation: int) -> "Setting":
        """Another rank and accumulation."""
        return replace(self, rank=rank, accumulation=accumulation)


def _entry(model: Path) -> ModelEntry:
    return ModelEntry(path=str(model), precision="32bit", chat_template=None)


def _lora(setting: Setting) -> Trainable:
    return Trainable(method="lora", rank=setting.rank, target_modules="all-linear")


def predicted_mib(model: Path, setting: Setting, backend: str, *, optimizer: str, most_tokens: int) -> float:
    """The plan's peak for that run, MiB, CUDA context included."""
    from loragrid.models.batch_sizes import TRL_LOSS
    from loragrid.models.find_shape import find_shape
    from loragrid.planning.gpu_cards import detect_gpu
    from loragrid.planning.job_memory import gpu_layout, with_layout
    from loragrid.planning.memory_model import TrainingSetup, training_memory

    shape, here = find_shape(_entry(model)), detect_gpu()
    setup = TrainingSetup(
        precision=setting.precision,
        trainable=_lora(setting),
        optimizer=optimizer,
        per_device=setting.per_device,
        max_length_tokens=most_tokens,
        compute_dtype=setting.dtype,
        backend=backend,
        checkpointing=False,
        loss=TRL_LOSS["cuda" if here else "cpu"],
    )
    if here:
        layout = gpu_layout(shape, setup, accumulation=setting.accumulation, fold=False, memory_mib=here[1])
        setup = with_layout(setup, layout)
    return training_memory(shape, setup).total_mib


def utilisation(model: Path, setting: Setting, tokens_per_second: float) -> float | None:
    """Operations that the result needs (no recomputation) over the card's peak; None without a known card."""
    from loragrid.models.find_shape import find_shape
    from loragrid.models.flops import training_per_token
    from loragrid.planning.gpu_cards import detect_gpu, find_card

    here = detect_gpu()
    card = find_card(here[0]) if here else None
    if card is None:
        return None
    needed = training_per_token(
        find_shape(_entry(model)),
        _lora(setting),
        row_tokens=MOST_TOKENS if setting.packing else MEAN_TOKENS,
        checkpointing=False,
    )
    return sum(needed.values()) * tokens_per_second / (card.peak_tflops * 1e12)
