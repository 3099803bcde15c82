"""Rows of a plan as plain values: what each cell is, needs and costs."""

import math
from typing import Any

from loragrid.models.shape import Shape
from loragrid.models.trained_weights import Trainable, trained_tensors
from loragrid.planning.forecast import device_for_model, expected_rate, fitting_changes
from loragrid.planning.job_memory import gpu_backend, request_key, run_memory
from loragrid.planning.measurements import earlier_peak_mib
from loragrid.planning.memory_model import CONTEXT_MIB
from loragrid.planning.plan_inputs import PlanInputs
from loragrid.planning.scoring_cost import scoring_seconds, task_sizes
from loragrid.planning.scoring_memory import predict_scoring
from loragrid.planning.step_time import LOAD_SECONDS, start_seconds, training_seconds
from loragrid.study.completion import defaults_used
from loragrid.study.grid import Cell
from loragrid.study.settings import Section
from loragrid.study.study_file import Study

# Columns that are None for a model of unknown shape.
FIGURES = (
    "rows_per_pass passes checkpointing parameters trainable weights_mib adapters_mib gradients_mib optimizer_mib "
    "activations_mib logits_mib overhead_mib total_mib measured_peak_mib fits fit_by steps tokens flops "
    "flops_by_part tflops train_hours start_hours train_from sessions score_mib score_fits score_hours score_from"
).split()


def plan_row(inputs: PlanInputs, cell: Cell) -> dict[str, Any]:
    """All columns of a cell; `problem` says why its figures are unknown, if they are.

    `train_hours` and `score_hours` are also those of one more seed of its setting.
    """
    row = _cell_columns(cell)
    shape = inputs.shapes.get(cell.model)
    if shape is not None:
        row |= _memory_columns(inputs, cell, shape)
        row |= _time_columns(inputs, cell, shape)
        row |= _run_scoring(inputs, cell, tflops=row["tflops"])
    return row | {"problem": inputs.missing_shapes.get(cell.model)}


def _cell_columns(cell: Cell) -> dict[str, Any]:
    """The setting of a cell, and all figures as None."""
    return {
        "run": cell.run,
        "data_id": cell.data,
        **{name: _plain(value) for name, value in vars(cell.settings).items() if name != "batch"},
        "per_device": cell.settings.per_device,
        "accumulation": cell.settings.accumulation,
    } | dict.fromkeys(FIGURES)


def _plain(value: Any) -> Any:
    """A setting as JSON and a table can hold it: {"steps": 5}, not a section."""
    if isinstance(value, Section):
        return {name: amount for name, amount in vars(value).items() if amount is not None}
    return list(value) if isinstance(value, tuple) else value


def _memory_columns(inputs: PlanInputs, cell: Cell, shape: Shape) -> dict[str, Any]:
    """Parameters, memory by part, whether it fits, and what would make it fit.

    `fits` and `score_fits` are None if the device's memory is unknown.
    """
    study, device = inputs.study, inputs.device
    layout = inputs.layouts[request_key(cell.settings)]
    memory = run_memory(study, cell, shape, device, layout)
    score_mib = predict_scoring(study, cell, shape, bf16=device.bf16, on_cpu=device.kind == "cpu").total_mib
    fits = score_fits = None
    measured_mib = _measured_peak(inputs, cell, shape)
    if device.vram_mib is not None:
        needed = memory.total_mib
        if measured_mib is not None and device.kind == "cuda":
            needed = measured_mib + CONTEXT_MIB  # torch does not count the context
        fits = needed <= device.vram_mib
        score_fits = score_mib <= device.vram_mib
    changes = fitting_changes(cell.settings, shape, device, liger=study.training.liger_kernels)
    return {
        "rows_per_pass": layout.per_device,
        "passes": layout.accumulation,
        "checkpointing": layout.checkpointing,
        "parameters": shape.parameters(),
        "trainable": sum(trained_tensors(shape, Trainable.of(cell.settings))),
        **{f"{part}_mib": round(value, 1) for part, value in vars(memory).items()},
        "total_mib": memory.total_mib,
        "measured_peak_mib": measured_mib,
        "fits": fits,
        "fit_by": list(changes) if fits is False else [],
        "score_mib": score_mib,
        "score_fits": score_fits,
    }


def _measured_peak(inputs: PlanInputs, cell: Cell, shape: Shape) -> float | None:
    """MiB that this run took or, before it has run, that runs of other studies with its settings took."""
    record = inputs.measured.runs.get(cell.run)
    if record is None:
        return earlier_peak_mib(cell.settings, shape, inputs.measured.earlier)
    return record.peak_vram_mib if inputs.device.kind == "cuda" else record.peak_rss_mib


def _time_columns(inputs: PlanInputs, cell: Cell, shape: Shape) -> dict[str, Any]:
    """Updates, tokens, operations, hours with their source, and sessions."""
    workload = inputs.workloads[cell.run]
    device = device_for_model(cell.settings, shape, inputs.device)
    measured, gpus = inputs.measured, inputs.study.training.gpus
    rate = expected_rate(cell, inputs.finished, inputs.workloads, measured, device, shape=shape)
    flops, source, hours = workload.total_flops, rate.source, None
    if flops and rate.tflops:
        hours = training_seconds(flops, workload.operations, rate) / 3600 / gpus
        if rate.overlapping and hours * gpus * 3600 * rate.tflops * 1e12 > 1.001 * flops:
            source = f"starting its operations takes longer than its arithmetic, {1e6 * rate.launch_seconds:g} µs each"
    resident, backend = cell.run in inputs.resident, gpu_backend(cell.settings)
    start_hours = start_seconds(device.kind, backend=backend, resident=resident) / 3600
    record = measured.runs.get(cell.run)
    if record is not None:
        # Nothing is left to predict.
        hours, start_hours = record.train_seconds / 3600, 0.0
        source = f"measured on the run itself, which {record.status}"
    return {
        "steps": workload.steps,
        "tokens": workload.tokens,
        "flops": flops,
        "flops_by_part": workload.flops,
        "tflops": rate.tflops,
        "train_hours": hours,
        "start_hours": start_hours,
        "train_from": source,
        "sessions": _sessions(hours, inputs.session_minutes),
    }


def _sessions(hours: float | None, session_minutes: float | None) -> int | None:
    if hours is None:
        return None
    if session_minutes is None:
        return 1
    return max(1, math.ceil(hours * 60 / session_minutes))


def _run_scoring(inputs: PlanInputs, cell: Cell, *, tflops: float | None) -> dict[str, Any]:
    """The scoring of a run at its end and at each share of its budget that is kept."""
    columns = scoring_columns(inputs, cell, subject=cell.run, tflops=tflops)
    times = 1 + sum(share < 1 for share in inputs.study.scoring.at)
    if times > 1 and columns["score_hours"] is not None:
        columns["score_hours"] *= times
        columns["score_from"] += f", {times} times along the run"
    return columns


def scoring_columns(inputs: PlanInputs, cell: Cell, *, subject: str, tflops: float | None) -> dict[str, Any]:
    """Hours of scoring a `subject`, a cell's run or base, and their source.

    The source is the subject's own record, else the mean of the model's scored subjects, else an
    estimate at the rate `tflops`.
    """
    scores = inputs.measured.scores
    if subject in scores:
        return {"score_hours": scores[subject].seconds / 3600, "score_from": "measured"}
    of_model = [score.seconds for score in scores.values() if score.model == cell.model]
    if of_model:
        hours = sum(of_model) / len(of_model) / 3600
        return {"score_hours": hours, "score_from": f"measured on others of {cell.model}"}
    if tflops is None:
        return {"score_hours": None, "score_from": "unknown until a run has finished"}
    seconds = scoring_seconds(
        inputs.shapes[cell.model],
        scoring=inputs.study.scoring,
        heldout_rows=inputs.study.heldout.rows,
        row_tokens=inputs.sizes[cell.run].row_tokens,
        tflops=tflops,
        on_cpu=inputs.device.kind == "cpu",
    )
    if inputs.device.kind == "cpu":
        del seconds["loading"]  # All jobs share one process.
    elif inputs.resident:
        seconds["loading"] = LOAD_SECONDS
    source = "estimated, not measured"
    missing = [task for task, value in seconds.items() if value is None]
    if missing:
        source += f"; without {', '.join(missing)}, of unknown size"
    hours = sum(value or 0 for value in seconds.values()) / 3600
    return {"score_hours": hours, "score_from": source}


def base_rows(inputs: PlanInputs, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each base and adopted adapter, which are scored too; `rows` are the cells'."""
    rates: dict[str, float | None] = {}
    for row in rows:
        rates.setdefault(row["model"], row["tflops"])
    subjects = dict(inputs.study.bases)
    # An adapter takes as long as its base.
    subjects |= {subject: adopted.cell for subject, adopted in inputs.study.adopted.items()}
    bases = []
    for subject, cell in subjects.items():
        if cell.model in inputs.shapes:
            cost = scoring_columns(inputs, cell, subject=subject, tflops=rates.get(cell.model))
            bases.append({"base": subject, "model": cell.model, **cost})
    return bases


def task_rows(study: Study) -> list[dict[str, Any]]:
    """Tasks with their items and half the 95 % interval of a score, as a share; None if unknown."""
    rows = []
    for name, size in task_sizes(study.scoring).items():
        row = {"task": name, "items": None, "half_width": None}
        if size is not None:
            row |= {"items": size.items, "half_width": size.half_width}
        rows.append(row)
    return rows


def default_rows(study: Study) -> list[dict[str, Any]]:
    """`key`, `value` and `reason` of every key that the study file leaves to its default.

    Settings of an adapter that no run has are left out.
    """
    used = {name for cell in study.cells for name, value in vars(cell.settings).items() if value is not None}
    rows = []
    for key, value, reason in defaults_used(study.written):
        section, _, name = key.partition(".")
        if section != "base_case" or name in used:
            rows.append({"key": key, "value": value, "reason": reason})
    return rows


def totals(
    rows: list[dict[str, Any]],
    bases: list[dict[str, Any]],
    session_minutes: float | None,
) -> dict[str, Any]:
    """Sums over the known figures; `complete` says whether all are known."""
    train = [row["train_hours"] for row in rows]
    score = [row["score_hours"] for row in (*rows, *bases)]
    start = sum(row["start_hours"] or 0 for row in rows)
    hours = start + sum(value or 0 for value in (*train, *score))
    return {
        "train_hours": sum(value or 0 for value in train),
        "start_hours": start,
        "score_hours": sum(value or 0 for value in score),
        "hours": hours,
        "sessions": math.ceil(hours * 60 / session_minutes) if session_minutes else None,
        "tokens": sum(row["tokens"] or 0 for row in rows),
        "flops": sum(row["flops"] or 0 for row in rows),
        "complete": None not in train and None not in score,
        "not_fitting": [row["run"] for row in rows if row["fits"] is False],
    }
