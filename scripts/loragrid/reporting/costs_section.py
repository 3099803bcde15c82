"""The page's section on costs: time, memory, energy and operations of each run."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from loragrid.errors import UserError
from loragrid.formatting import duration, listed, mebibytes, number, score, visible, whole
from loragrid.models.find_shape import find_shape
from loragrid.models.shape import Shape
from loragrid.planning.forecast import Workload, completed_flops, device_for_model, workload_of
from loragrid.planning.gpu_cards import find_card, planned_device, read_cards
from loragrid.planning.job_memory import recorded_layout
from loragrid.planning.measurements import data_size
from loragrid.planning.step_time import training_seconds
from loragrid.records.outcomes import Outcome
from loragrid.records.record import RunRecord
from loragrid.reporting.page import Material
from loragrid.statistics.paired_statistics import BETTER
from loragrid.study.settings import Settings

TERAFLOPS_FROM = 1e11  # operations per second; slower machines are given in GFLOP/s


class CostCell(NamedTuple):
    """A cell of the table: its text, and the number that it is sorted by."""

    text: str
    sort: float | None


UNKNOWN = CostCell("–", None)


def _cell(value: float | None, text: Callable[[float], str]) -> CostCell:
    if value is None:
        return UNKNOWN
    return CostCell(text(value), value)


def cost_table(material: Material) -> dict[str, Any]:
    """`headings` and `rows`, a row per trained run: its label and its cells.

    A column that is empty for all is left out.
    """
    table = {}
    for outcome in material.outcomes:
        if outcome.record:
            cells = _time(material, outcome) | _work(material, outcome) | _size(outcome.record)
            table[outcome.subject] = cells
    used = dict.fromkeys(heading for cells in table.values() for heading, cell in cells.items() if cell != UNKNOWN)
    order = next(iter(table.values()), {})
    headings = [heading for heading in order if heading in used]
    rows = [
        {"label": material.compared.labels[run], "cells": [cells[heading] for heading in headings]}
        for run, cells in table.items()
    ]
    return {"headings": headings, "rows": rows}


def _time(material: Material, outcome: Outcome) -> dict[str, CostCell]:
    record = outcome.record
    gpu_hours = record.train_seconds / 3600 if on_gpu(record) else None
    scoring_seconds = outcome.score.seconds if outcome.score else None
    return {
        "Training": _cell(record.train_seconds, duration),
        "GPU-hours of training": _cell(gpu_hours, number),
        "Scoring": _cell(scoring_seconds, duration),
        "Training per point gained (interval)": _price(material, outcome),
    }


def on_gpu(record: RunRecord) -> bool:
    """Whether a run was trained on a CUDA GPU."""
    return record.device.get("kind") == "cuda"


def cost_per_point(material: Material, outcome: Outcome) -> tuple[float, float, float] | None:
    """Seconds of training per point of target gain, of several seeds per point of their mean gain, with its interval.

    None if the gain is not proved: a gain that may be zero has no price.
    """
    for row in material.compared.summary["trade_offs"]:
        if outcome.subject in row["runs"].split():
            if material.compared.unit == "share" and row["gain_verdict"] == BETTER:
                gains = (row["gain"], row["gain_high"], row["gain_low"])
                # The corrected test may prove a gain whose own interval reaches 0: then its price has no upper end.
                return tuple(outcome.record.train_seconds / (100 * gain) if gain > 0 else math.inf for gain in gains)
    return None


def _price(material: Material, outcome: Outcome) -> CostCell:
    """The price of a point with its interval, in GPU-hours where a GPU trained."""
    found = cost_per_point(material, outcome)
    if found is None:
        return UNKNOWN
    amount = duration
    if on_gpu(outcome.record):
        amount = _gpu_hours
    price, low, high = found
    above = f"{amount(low)} to {amount(high)}" if math.isfinite(high) else f"from {amount(low)}"
    return CostCell(f"{amount(price)} ({above})", price)


def _gpu_hours(seconds: float) -> str:
    return f"{number(seconds / 3600, 2)} GPU-h"


def _work(material: Material, outcome: Outcome) -> dict[str, CostCell]:
    record = outcome.record
    per_second = operations_per_second(material, outcome)
    share = None
    if per_second is not None:
        share = share_of_peak(per_second, record.device)
    return {
        "Tokens": _cell(record.tokens, whole),
        "Samples": _cell(record.samples, whole),
        "Updates": _cell(record.steps, whole),
        "Tokens/s": _cell(record.tokens_per_second, whole),
        "Operations/s": _cell(per_second, operations),
        "Of the card’s peak": _cell(share, lambda share: f"{number(100 * share, 2)}%"),
        "Padding": _cell(record.padding_share, lambda share: score(share, "share")),
    }


def operations_per_second(material: Material, outcome: Outcome) -> float | None:
    """Operations by the plan's own count over the training time.

    None if the model's shape is unknown.

    The count (loragrid/models/flops.py) includes attention, held-out measurements and, on a GPU,
    recomputed activations.
    """
    study, record = material.study, outcome.record
    try:
        shape = find_shape(study.models[outcome.model])
    except UserError:
        return None  # a model family that the plan does not know either
    if shape is None or not record.train_seconds > 0:
        return None
    data = data_size(study, outcome.cell, material.results)
    workload = workload_of(study, outcome.cell, shape, data, layout=recorded_layout(record, outcome.cell.settings))
    return completed_flops(workload, record) / record.train_seconds


def operations(per_second: float) -> str:
    """As 3.2 TFLOP/s or 45 GFLOP/s."""
    if per_second >= TERAFLOPS_FROM:
        return f"{number(per_second / 1e12)} TFLOP/s"
    return f"{number(per_second / 1e9)} GFLOP/s"


def share_of_peak(per_second: float, device: dict[str, Any]) -> float | None:
    """The share of the card's peak, if config/cards.yaml lists the card."""
    if device.get("kind") != "cuda":
        return None
    card = find_card(str(device.get("name", "")))
    if card is None:
        return None
    return per_second / (card.peak_tflops * 1e12 * device.get("gpus", 1))


def _size(record: RunRecord) -> dict[str, CostCell]:
    # A run on a GPU has both figures; the card's memory is the scarce one.
    memory, kind = record.peak_rss_mib, "RAM"
    if record.peak_vram_mib:
        memory, kind = record.peak_vram_mib, "GPU"
    trainable = record.trainable_parameters
    share = number(100 * trainable / record.total_parameters, 2)
    return {
        "Peak memory": CostCell(f"{mebibytes(memory)} {kind}", memory),
        "Energy": _cell(record.energy_joules, lambda joules: f"{number(joules / 3600)} Wh"),
        "Trained parameters": CostCell(f"{whole(trainable)} ({share}%)", trainable),
    }


def total_cost(material: Material) -> str:
    """Sentences on the time that the whole study took, and on its energy."""
    records = [outcome.record for outcome in material.outcomes if outcome.record]
    if not records:
        return "No run has been trained yet."
    training = sum(record.train_seconds for record in records)
    scoring = sum(outcome.score.seconds for outcome in material.outcomes if outcome.score)
    devices = listed(sorted({visible(str(record.device.get("name")), 60) for record in records}))
    gpu_hours = sum(record.train_seconds for record in records if on_gpu(record)) / 3600
    on_cards = f" ({number(gpu_hours)} GPU-hours of training)" if gpu_hours else ""
    time = f"Training took {duration(training)} and scoring {duration(scoring)} in total, on {devices}{on_cards}."
    metered = [record.energy_joules for record in records if record.energy_joules is not None]
    if not metered:
        return f"{time} Energy was not metered."
    energy = number(math.fsum(metered) / 3600)
    return f"{time} Energy was metered for {len(metered)} of {len(records)} runs: {energy} Wh."


def card_rows(material: Material) -> list[dict[str, str]]:
    """What training all finished runs would take on each card of config/cards.yaml, by the plan's own model.

    A row: `card`, `time`, `seconds` to sort by, and whether its rate was measured (`source`). The fastest is first.
    """
    planned = _planned_workloads(material)
    if not planned:
        return []
    rows = []
    for key, card in read_cards().items():
        device = planned_device(replace(material.study.plan, card=key, vram_mib=None), detect=False)
        seconds = [
            training_seconds(
                workload.total_flops, workload.operations, device_for_model(settings, shape, device).rate()
            )
            for settings, shape, workload in planned
        ]
        whence = "measured elsewhere" if card.training_tflops is not None else "assumed"
        rows.append({"card": key, "time": duration(sum(seconds)), "seconds": sum(seconds), "source": whence})
    return sorted(rows, key=lambda row: row["seconds"])


def _planned_workloads(material: Material) -> list[tuple[Settings, Shape, Workload]]:
    """Settings, shape and workload of each finished run whose operations can be counted."""
    found = []
    for outcome in material.outcomes:
        if outcome.record is None:
            continue
        try:
            shape = find_shape(material.study.models[outcome.model])
        except UserError:
            continue
        if shape is None:
            continue
        data, settings = data_size(material.study, outcome.cell, material.results), outcome.cell.settings
        workload = workload_of(
            material.study, outcome.cell, shape, data, layout=recorded_layout(outcome.record, settings)
        )
        if workload.total_flops:
            found.append((settings, shape, workload))
    return found
