"""Forecast of a cell: its workload, the expected training rate, and changes that make it fit."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from loragrid.errors import UserError
from loragrid.models.find_shape import find_shape
from loragrid.models.flops import forward_per_token, training_per_pass, training_per_token
from loragrid.models.shape import Shape
from loragrid.models.trained_weights import Trainable
from loragrid.planning.gpu_cards import PlannedDevice, read_cards
from loragrid.planning.job_memory import gpu_dtype, request_key, run_memory, training_memory_on, training_setup
from loragrid.planning.measurements import DataSize, Measurements, earlier_rate
from loragrid.planning.memory_model import computed_in
from loragrid.planning.step_time import Rate, operations_per_pass
from loragrid.records.record import RunRecord
from loragrid.study.batch_shares import StepLayout
from loragrid.study.budget import updates
from loragrid.study.grid import Cell
from loragrid.study.methods import METHODS
from loragrid.study.settings import Settings
from loragrid.study.study_file import Study


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Updates, tokens and operations of a run, held-out measurements included.

    `flops` are by part; `operations` counts what the training passes start on a GPU. `steps` and
    `tokens` are None and `flops` is empty if the budget is in epochs and the number of rows is unknown.
    """

    steps: int | None
    tokens: int | None
    flops: dict[str, float]
    operations: float = 0.0

    @property
    def total_flops(self) -> float | None:
        """All operations of the run; None if they are unknown."""
        return sum(self.flops.values()) if self.flops else None


def device_for_model(settings: Settings, shape: Shape, device: PlannedDevice) -> PlannedDevice:
    """The device as a run's model uses it: in float32, and slower, if float16 would overflow."""
    dtype = gpu_dtype(settings, bf16=device.bf16)
    if device.kind != "cuda" or computed_in(shape, dtype) != "fp32":
        return device
    in_float32 = device.in_float32()
    if dtype == "fp32":
        # The study asks for float32, so this model is no slower than others with this setting.
        return replace(in_float32, slowdown=1.0)
    return in_float32


def workload_of(
    study: Study,
    cell: Cell,
    shape: Shape,
    data: DataSize,
    *,
    layout: StepLayout,
) -> Workload:
    """The workload of a run whose updates have that layout."""
    checkpointing = layout.checkpointing
    settings, trainable = cell.settings, Trainable.of(cell.settings)
    steps = updates(
        settings.budget,
        rows=data.rows,
        row_tokens=data.row_tokens,
        per_device=settings.per_device,
        accumulation=settings.accumulation,
    )
    if steps is None:
        return Workload(steps=None, tokens=None, flops={})
    tokens = round(steps * settings.per_device * settings.accumulation * data.row_tokens)
    per_token = training_per_token(shape, trainable, row_tokens=data.row_tokens, checkpointing=checkpointing)
    flops = {part: tokens * operations for part, operations in per_token.items()}
    passes = steps * layout.accumulation
    flops["adapters"] += passes * training_per_pass(shape, trainable, checkpointing=checkpointing)
    # The held-out loss is measured before the first update and at equal parts of the budget.
    measurements = 1 + min(settings.evaluations, steps)
    heldout_tokens = measurements * study.heldout.rows * data.row_tokens
    flops["held-out loss"] = heldout_tokens * forward_per_token(shape, row_tokens=data.row_tokens)
    operations = passes * operations_per_pass(shape, checkpointing=checkpointing)
    return Workload(steps=steps, tokens=tokens, flops=flops, operations=operations)


def expected_rate(
    cell: Cell,
    cells: Iterable[Cell],
    workloads: Mapping[str, Workload],
    measured: Measurements,
    device: PlannedDevice,
    *,
    shape: Shape | None = None,
) -> Rate:
    """Expected rate of a cell's training, and its source.

    The source is the finished runs of the same model on such a device, of the same method and
    precision if there are any, else those of any model, else runs of other studies on a base of the
    same `shape`, else the card's expected rate.
    """
    finished = []
    for other in cells:
        workload = workloads.get(other.run)
        if other.run in measured.runs and workload is not None and workload.total_flops:
            finished.append(other)
    if not finished:
        return _rate_of_others(cell, measured, device, shape) or device.rate()
    of_model = [other for other in finished if other.model == cell.model]
    # Methods and precisions differ in speed beyond their operations.
    alike = [other for other in of_model if _speed_key(other.settings) == _speed_key(cell.settings)]
    used = alike or of_model or finished
    records = {other.run: measured.runs[other.run] for other in used}
    flops = sum(completed_flops(workloads[run], record) for run, record in records.items())
    # The rate is that of one GPU.
    seconds = sum(record.train_seconds * record.gpus for record in records.values())
    # Other models ran at their own precision; this one may have to run in float32, which is slower.
    slowdown = 1.0 if of_model else device.slowdown
    whose = cell.model if of_model else "other models"
    runs = "run" if len(used) == 1 else "runs"
    return Rate(
        tflops=slowdown * flops / seconds / 1e12,
        source=f"measured here on {len(used)} {runs} of {whose}",
        launch_seconds=0.0 if of_model else device.launch_seconds,
        overlapping=device.kind == "cuda",
    )


def _rate_of_others(cell: Cell, measured: Measurements, device: PlannedDevice, shape: Shape | None) -> Rate | None:
    found = None
    if shape is not None:
        checkpointing = device.kind == "cuda"
        found = earlier_rate(cell.settings, shape, measured.earlier, checkpointing=checkpointing)
    if found is None:
        return None
    tflops, number = found
    runs = "run" if number == 1 else "runs"
    return Rate(tflops=tflops, source=f"measured on {number} {runs} of other studies on this base and such a device")


def _speed_key(settings: Settings) -> tuple[str, ...]:
    return settings.method, settings.precision, settings.compute_dtype, settings.backend


def completed_flops(workload: Workload, record: RunRecord) -> float:
    """Operations of a run that has ended; a diverged run made only a part of its updates."""
    return workload.total_flops * min(1.0, record.steps / workload.steps)


def device_warnings(study: Study, cells: Iterable[Cell], device: PlannedDevice) -> list[str]:
    """A line per cell that is predicted not to fit this machine's GPU, and one for fp16 on a CPU.

    These are warnings, not errors, because on a cluster the GPU is in another machine.
    """
    lines = []
    cells = list(cells)
    if device.kind == "cpu" and any(cell.settings.compute_dtype == "fp16" for cell in cells):
        lines.append(
            "compute_dtype: there is no GPU, and a CPU does not train in fp16. Fix: set it to fp32, bf16 or auto."
        )
    if device.kind != "cuda" or not device.found or not device.vram_mib:
        return lines
    known: dict[tuple, int | None] = {}
    for cell in cells:
        key = request_key(cell.settings)
        if key not in known:
            known[key] = _needed_mib(study, cell, device)
        needed = known[key]
        if needed is not None and needed > device.vram_mib:
            lines.append(
                f"{cell.run} will probably not fit: {needed:,} MiB predicted, "
                f"{device.name} has {device.vram_mib:,}. "
                "Fix: see `snakemake --cores 1 plan` for changes that make it fit."
            )
    return lines


def _needed_mib(study: Study, cell: Cell, device: PlannedDevice) -> int | None:
    """Predicted training memory; None if unknown, which the plan and the train stage report."""
    try:
        shape = find_shape(study.models[cell.model])
        if shape is None:
            return None
        return run_memory(study, cell, shape, device).total_mib
    except UserError:
        return None


def fitting_changes(settings: Settings, shape: Shape, device: PlannedDevice, *, liger: bool) -> Iterator[str]:
    """Single changes that would each make a run fit `device`, with the memory it would take.

    None is made automatically, because each changes the result or the cost of the run.
    """
    setup = training_setup(settings, device, liger=liger)

    def memory_with(**changes: object) -> int:
        return training_memory_on(device, shape, replace(setup, **changes)).total_mib

    # The product of both batch numbers stays, so that an update still sees as many rows.
    rows_per_update = settings.per_device * settings.accumulation
    for rows in range(setup.per_device - 1, 0, -1):
        memory = memory_with(per_device=rows)
        if rows_per_update % rows == 0 and memory <= device.vram_mib:
            yield f"batch [{rows}, {rows_per_update // rows}] ({memory:,} MiB)"
            break
    longest = setup.max_length_tokens
    for shorter in (longest * 3 // 4, longest // 2, longest // 4, longest // 8):
        memory = memory_with(max_length_tokens=shorter)
        if memory <= device.vram_mib:
            yield f"max_length_tokens {shorter} ({memory:,} MiB)"
            break
    if device.kind != "cuda":
        return
    memory = memory_with(backend="unsloth")
    if setup.backend == "trl" and METHODS[settings.method].unsloth and memory <= device.vram_mib:
        yield f"backend unsloth ({memory:,} MiB)"
    memory = memory_with(precision="4bit")
    four_bit = "4bit" in METHODS[settings.method].precisions
    if setup.precision != "4bit" and four_bit and memory <= device.vram_mib:
        yield f"precision 4bit ({memory:,} MiB)"
    needed = memory_with()
    large_enough = [card for card in read_cards().values() if card.memory_mib >= needed]
    if large_enough:
        card = min(large_enough, key=lambda card: (card.memory_mib, card.key))
        yield f"a card such as {card.key} ({card.memory_mib:,} MiB)"
