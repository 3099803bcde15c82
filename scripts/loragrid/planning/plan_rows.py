"""The rows of a plan: what each cell is, takes and costs, as plain values."""

import math
from typing import Any

from loragrid.errors import UserError
from loragrid.models.shape import Shape, find_shape
from loragrid.planning.forecast import Work, memory_here, mends, rate_of
from loragrid.planning.gpu_cards import Device
from loragrid.planning.job_memory import predict_scoring
from loragrid.planning.measurements import DataSize, Measured
from loragrid.planning.scoring_cost import scoring_seconds, task_sizes
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study

# Figures of a cell that are None until they are known.
FIGURES = (
    "parameters trainable weights_mib adapters_mib optimizer_mib activations_mib logits_mib overhead_mib total_mib "
    "measured_peak_mib fits fit_by steps tokens flops flops_by_part tflops train_hours train_from sessions "
    "score_mib score_fits score_hours score_from"
).split()


def find_shapes(study: Study, cells: tuple[Cell, ...]) -> tuple[dict[str, Shape], dict[str, str]]:
    """Model → shape, and model → why its shape is not known."""
    shapes, unknown = {}, {}
    for model in dict.fromkeys(cell.model for cell in cells):
        try:
            shapes[model] = find_shape(study.models[model], network=True)
        except UserError as error:
            unknown[model] = str(error)
    return shapes, unknown


def describe_cell(cell: Cell) -> dict[str, Any]:
    """What a cell is; the other keys, None until they are known."""
    return {
        "run": cell.run,
        "data": cell.data,
        "model": cell.model,
        "learning_rate": cell.learning_rate,
        "rank": cell.rank,
        "per_device": cell.batch[0],
        "accumulation": cell.batch[1],
        "seed": cell.seed,
    } | dict.fromkeys(FIGURES)


def describe_size(study: Study, cell: Cell, shape: Shape, device: Device, measured: Measured) -> dict[str, Any]:
    """Parameters, memory by part, whether it fits (None where the device's memory is not known) and what would make it."""
    memory = memory_here(study, cell, shape, device)
    fits = None if device.vram_mib is None else memory.total_mib <= device.vram_mib
    target_modules = study.training.target_modules
    record = measured.runs.get(cell.run)
    peak = None if record is None else record.peak_vram_mib if device.kind == "cuda" else record.peak_rss_mib
    return {
        "parameters": shape.parameters(),
        "trainable": sum(shape.adapter_tensors(rank=cell.rank, target_modules=target_modules)),
        **{f"{part}_mib": round(value, 1) for part, value in vars(memory).items()},
        "total_mib": memory.total_mib,
        "measured_peak_mib": peak,
        "fits": fits,
        "fit_by": list(mends(study, cell, shape, device)) if fits is False else [],
        "score_mib": (score_mib := predict_scoring(study, cell, shape, bf16=device.bf16).total_mib),
        "score_fits": None if device.vram_mib is None else score_mib <= device.vram_mib,
    }


def describe_time(
    cell: Cell,
    cells: tuple[Cell, ...],
    works: dict[str, Work],
    measured: Measured,
    device: Device,
    session_minutes: float | None,
) -> dict[str, Any]:
    """Updates, tokens, operations, hours with their source, and sessions of that many minutes."""
    work, record = works[cell.run], measured.runs.get(cell.run)
    tflops, source = rate_of(cell, works, cells, measured, device)
    flops = work.total_flops
    hours = flops / (tflops * 1e12) / 3600 if flops and tflops else None
    if record is not None:
        hours, source = record.train_seconds / 3600, f"measured on the run itself, which {record.status}"
    sessions = (
        None if hours is None else 1 if session_minutes is None else max(1, math.ceil(hours * 60 / session_minutes))
    )
    return {
        "steps": work.steps,
        "tokens": work.tokens,
        "flops": flops,
        "flops_by_part": work.flops,
        "tflops": tflops,
        "train_hours": hours,
        "train_from": source,
        "sessions": sessions,
    }


def describe_scoring(
    study: Study, subject: str, model: str, shape: Shape, row_tokens: float, tflops: float | None, measured: Measured
) -> dict[str, Any]:
    """Hours of scoring a subject: its own record's, else the mean of scored ones of the model, else reckoned."""
    if subject in measured.scores:
        return {"score_hours": measured.scores[subject].seconds / 3600, "score_from": "measured"}
    alike = [score.seconds for score in measured.scores.values() if score.model == model]
    if alike:
        return {"score_hours": sum(alike) / len(alike) / 3600, "score_from": f"measured on others of {model}"}
    if tflops is None:
        return {"score_hours": None, "score_from": "not known until a run has finished"}
    rows = study.data.heldout_rows
    seconds = scoring_seconds(shape, scoring=study.scoring, heldout_rows=rows, row_tokens=row_tokens, tflops=tflops)
    missing = [task for task, value in seconds.items() if value is None]
    source = "reckoned, not measured" + (f"; without {', '.join(missing)}, of unknown size" if missing else "")
    return {"score_hours": sum(value or 0 for value in seconds.values()) / 3600, "score_from": source}


def describe_bases(
    study: Study,
    cells: tuple[Cell, ...],
    shapes: dict[str, Shape],
    sizes: dict[str, DataSize],
    rows: list[dict[str, Any]],
    measured: Measured,
) -> list[dict[str, Any]]:
    """The untrained bases, which are scored too."""
    found = {}
    for cell, row in zip(cells, rows):
        if cell.base not in found and cell.model in shapes:
            cost = describe_scoring(
                study, cell.base, cell.model, shapes[cell.model], sizes[cell.run].row_tokens, row["tflops"], measured
            )
            found[cell.base] = {"base": cell.base, "model": cell.model, **cost}
    return list(found.values())


def describe_tasks(study: Study) -> list[dict[str, Any]]:
    """Tasks with their items and the half-width of a 95 % interval of their score, as a share."""
    return [
        {"task": name, "items": size and size.items, "half_width": size and size.half_width}
        for name, size in task_sizes(study.scoring).items()
    ]


def totals(rows: list[dict[str, Any]], bases: list[dict[str, Any]], session_minutes: float | None) -> dict[str, Any]:
    """Sums over what is known; `complete` says whether that is all."""
    train = [row["train_hours"] for row in rows]
    score = [row["score_hours"] for row in (*rows, *bases)]
    hours = sum(value or 0 for value in (*train, *score))
    return {
        "train_hours": sum(value or 0 for value in train),
        "score_hours": sum(value or 0 for value in score),
        "hours": hours,
        "sessions": math.ceil(hours * 60 / session_minutes) if session_minutes else None,
        "tokens": sum(row["tokens"] or 0 for row in rows),
        "flops": sum(row["flops"] or 0 for row in rows),
        "complete": None not in train and None not in score,
        "not_fitting": [row["run"] for row in rows if row["fits"] is False],
    }
