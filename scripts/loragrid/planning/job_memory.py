"""The memory model applied to a study's cells, and how an update's rows run in it. Imports no torch."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any

from loragrid.errors import UserError
from loragrid.models.batch_sizes import HEAD_LOSS, LIGER_LOSS, TRL_LOSS
from loragrid.models.find_shape import find_shape
from loragrid.models.shape import Shape
from loragrid.models.trained_weights import Trainable, check_rank
from loragrid.planning.gpu_cards import PlannedDevice, named_card
from loragrid.planning.memory_model import (
    CONTEXT_MIB,
    Memory,
    TrainingSetup,
    splits_base,
    training_memory,
)
from loragrid.records.record import RunRecord
from loragrid.study.batch_shares import StepLayout, cpu_layout, divided_batch, folds, written_layout
from loragrid.study.grid import Cell
from loragrid.study.methods import METHODS
from loragrid.study.settings import Settings
from loragrid.study.study_file import Study

# ASSUME: a job requests 1.4 times the predicted memory, since this project has confirmed no
# prediction on a GPU and two jobs that do not fit beside each other both die. A layout of an update
# fits a card if its request does.
MEMORY_MARGIN = 1.4
# Settings that change neither the memory nor the length of a job. All others count, so that a new
# setting counts until somebody has thought about it.
FREE_SETTINGS = frozenset(
    "learning_rate alpha learning_rate_ratio seed schedule warmup weight_decay max_grad_norm threads".split()
)
# Ends of the names of the output layer and the embedding.
VOCABULARY = ("lm_head", "embed_tokens")
_KEY = attrgetter(*(field.name for field in fields(Settings) if field.name not in FREE_SETTINGS))


def request_key(settings: Settings) -> tuple[Any, ...]:
    """The settings of a run that its memory and length depend on; equal keys need equal jobs.

    A study may have thousands of cells and far fewer keys.
    """
    return _KEY(settings)


def check_study_modules(study: Study, cells: Iterable[Cell]) -> None:
    """Raise `UserError` if a model lacks `target_modules` of a run or a trial, or cannot have its rank.

    Training would raise it too, but hours later. Models of unknown shape are skipped; the plan
    reports them.
    """
    shapes: dict[str, Shape | None] = {}
    trained = dict.fromkeys((cell.model, Trainable.of(cell.settings)) for cell in cells)
    for model, trainable in (*trained, *_searched(study)):
        if model not in shapes:
            shapes[model] = None
            with suppress(UserError):
                shapes[model] = find_shape(study.models[model])
        # A method without an adapter has no such setting.
        if shapes[model] is not None and trainable.target_modules is not None:
            first_of_size: dict[tuple[int, int], tuple[str, tuple[int, int]]] = {}
            for name, size in shapes[model].adapted_modules(trainable.target_modules):
                first_of_size.setdefault(size, (name, size))
            # A space may have thousands of ranks.
            check_rank(trainable, first_of_size.values())


def _searched(study: Study) -> Iterator[tuple[str, Trainable]]:
    """(model, what is trained) of every method, rank and set of modules in the space of a study's search."""
    if study.tune is None:
        return
    base, space = study.base_case, study.tune.spaces[study.tune.space]
    ranks = [base.rank]
    if "rank" in space:
        ranks = space["rank"].get("choices") or range(space["rank"]["low"], space["rank"]["high"] + 1)
    for method in space.get("method", {}).get("choices", [base.method]):
        has = METHODS[method].settings
        for modules in space.get("target_modules", {}).get("choices", [base.target_modules]):
            for rank in ranks if "rank" in has else [None]:
                used = modules if "target_modules" in has else None
                yield base.model, Trainable(method=method, rank=rank, target_modules=used)


def gpu_training_setup(settings: Settings, *, bf16: bool, liger: bool = False) -> TrainingSetup:
    """A run's training on a GPU; `bf16`: the GPU computes in bfloat16; `liger`: with liger's kernels."""
    return TrainingSetup(
        precision=settings.precision,
        trainable=Trainable.of(settings),
        optimizer=settings.optimizer,
        per_device=settings.per_device,
        max_length_tokens=settings.max_length_tokens,
        compute_dtype=gpu_dtype(settings, bf16=bf16),
        backend=gpu_backend(settings),
        checkpointing=True,
        loss=LIGER_LOSS if liger else TRL_LOSS["cuda"],
    )


def training_setup(settings: Settings, device: PlannedDevice, *, liger: bool = False) -> TrainingSetup:
    """A run's training on `device`; a CPU uses the trl backend and keeps activations. `liger`: with liger's kernels."""
    setup = gpu_training_setup(settings, bf16=device.bf16, liger=liger)
    if device.kind == "cuda":
        return setup
    asked = settings.compute_dtype
    dtype = "fp32" if asked == "auto" else asked
    loss = HEAD_LOSS if settings.precision == "32bit" and dtype == "fp32" and _freezes_head(settings) else None
    changes = {"compute_dtype": dtype, "backend": "trl", "checkpointing": False, "device": "cpu"}
    return replace(setup, **changes, loss=loss or TRL_LOSS["cpu"])


def _freezes_head(settings: Settings) -> bool:
    """Whether a run trains neither the output layer nor the embedding, which may be the same matrix."""
    listed = settings.target_modules or ()
    named = () if isinstance(listed, str) else listed
    return settings.method != "full" and not any(name.endswith(VOCABULARY) for name in named)


def recorded_layout(record: RunRecord, settings: Settings) -> StepLayout:
    """The layout of a run's updates; a record from before they had any is of the batch as written."""
    rows = record.rows_per_pass
    if rows is None:
        return written_layout(settings, str(record.device.get("kind")))
    return StepLayout(rows, settings.per_device * settings.accumulation // rows, bool(record.checkpointing))


def gpu_layout(
    shape: Shape, setup: TrainingSetup, *, accumulation: int, fold: bool, memory_mib: int | None
) -> StepLayout:
    """The fastest layout of an update whose request fits a card of `memory_mib` (None: as it is written).

    Activations are kept where the written batch fits so, because computing them again takes a third of the time.
    Then, with `fold`, as many rows a pass as fit: a pass of a small model waits for its operations to start.
    """
    written = StepLayout(setup.per_device, accumulation, True)
    if memory_mib is None:
        return written

    def fits(rows: int, checkpointing: bool) -> bool:
        memory = training_memory(shape, replace(setup, per_device=rows, checkpointing=checkpointing))
        return MEMORY_MARGIN * memory.total_mib <= memory_mib

    checkpointing = not fits(setup.per_device, False)
    for rows in folds(setup.per_device, accumulation) if fold else ():
        if fits(rows, checkpointing):
            return StepLayout(rows, setup.per_device * accumulation // rows, checkpointing)
    return replace(written, checkpointing=checkpointing)


def planned_layout(
    study: Study, settings: Settings, shape: Shape, device: PlannedDevice, *, row_tokens: float
) -> StepLayout:
    """The layout that training will choose on `device`; several GPUs divide a batch and fold nothing.

    unsloth pads on a CPU, so nothing is folded there.
    """
    fold, gpus = study.training.fold_batches, study.training.gpus
    if gpus > 1:
        return StepLayout(*divided_batch(settings.batch, gpus), device.kind == "cuda")
    if device.kind == "cpu":
        return cpu_layout(settings, row_tokens=row_tokens, fold=fold and settings.backend != "unsloth")
    setup = training_setup(settings, device, liger=study.training.liger_kernels)
    return gpu_layout(shape, setup, accumulation=settings.accumulation, fold=fold, memory_mib=device.vram_mib)


def with_layout(setup: TrainingSetup, layout: StepLayout) -> TrainingSetup:
    """The setup of a run whose updates have that layout."""
    return replace(setup, per_device=layout.per_device, checkpointing=layout.checkpointing)


def requested_setup(study: Study, settings: Settings, shape: Shape, *, bf16: bool) -> TrainingSetup:
    """The layout that a job requests memory for: the one that training chooses for `plan.vram_mib`, whatever the card.

    Without that number it is the one that takes the most: the card that the job will get may have room for it, so it
    may train so. On a smaller card Snakemake lowers the request to the whole card, which a layout is chosen to fill.
    """
    setup = gpu_training_setup(settings, bf16=bf16, liger=study.training.liger_kernels)
    if study.training.gpus > 1:
        return on_each_gpu(setup, settings, study.training.gpus)
    fold, memory_mib = study.training.fold_batches, study.plan.vram_mib
    if memory_mib is not None:
        layout = gpu_layout(shape, setup, accumulation=settings.accumulation, fold=fold, memory_mib=memory_mib)
        return with_layout(setup, layout)
    rows = settings.per_device * (settings.accumulation if fold else 1)
    return replace(setup, checkpointing=False, per_device=rows)


def on_each_gpu(setup: TrainingSetup, settings: Settings, gpus: int) -> TrainingSetup:
    """The training of a run on each of its `gpus` GPUs: each holds the whole base and computes a part of the rows."""
    if gpus == 1:
        return setup
    per_device, _ = divided_batch(settings.batch, gpus)
    loss = TRL_LOSS["cpu"] if setup.loss == HEAD_LOSS else setup.loss
    return replace(setup, per_device=per_device, backend="trl", loss=loss)


def training_memory_on(device: PlannedDevice, shape: Shape, setup: TrainingSetup) -> Memory:
    """`training_memory` on `device`; a CPU has no CUDA context."""
    memory = training_memory(shape, setup)
    if device.kind == "cuda":
        return memory
    return replace(memory, overhead=memory.overhead - CONTEXT_MIB)


def run_memory(
    study: Study, cell: Cell, shape: Shape, device: PlannedDevice, layout: StepLayout | None = None
) -> Memory:
    """Memory of a run on `device`, of each of them if the study's runs take several; without `layout` the least."""
    gpus = study.training.gpus
    setup = training_setup(cell.settings, device, liger=study.training.liger_kernels)
    setup = on_each_gpu(setup, cell.settings, gpus)
    if layout is not None:
        setup = with_layout(setup, layout)
    memory = training_memory_on(device, shape, setup)
    if splits_base(memory, setup, gpus=gpus, vram_mib=device.vram_mib):
        # One layer at a time is whole, which is little beside its share. TRL's chunks are not tried on a split base.
        memory = training_memory_on(device, shape, replace(setup, loss="nll"))
        return replace(memory, weights=memory.weights / gpus)
    return memory


def gpu_backend(settings: Settings) -> str:
    """The backend on a GPU, where `auto` is unsloth for the methods that it trains."""
    if settings.backend != "auto":
        return settings.backend
    return "unsloth" if METHODS[settings.method].unsloth else "trl"


def gpu_dtype(settings: Settings, *, bf16: bool) -> str:
    """The compute dtype on a GPU, where `auto` is bf16 if the GPU has it."""
    if settings.compute_dtype != "auto":
        return settings.compute_dtype
    return "bf16" if bf16 else "fp16"


def named_card_has_bf16(study: Study) -> bool:
    """Whether the study file's card computes in bfloat16.

    False without a card, which is safe: training in fp16 takes at least as much memory.
    """
    card = named_card(study.plan)
    return card is not None and card.bf16
