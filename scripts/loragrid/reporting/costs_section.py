"""The page's section on costs: time, GPU-hours, memory, energy and arithmetic of each run, and the price of a gain."""

import math
from typing import Any, NamedTuple

from loragrid.errors import UserError
from loragrid.formatting import duration, listed, mebibytes, number, score, visible, whole
from loragrid.models.shape import find_shape
from loragrid.planning.forecast import done_flops, work_of
from loragrid.planning.gpu_cards import find_card
from loragrid.planning.measurements import data_size
from loragrid.records.outcomes import Outcome
from loragrid.reporting.page import Material


class Figure(NamedTuple):
    """A cell of the table: what it says, and the number that it sorts by."""

    text: str
    sort: float | None


NONE = Figure("–", None)


def cost_table(material: Material) -> dict[str, Any]:
    """`headings` and `rows`, a row per trained run: its label and its cells. A column that no run fills is left out."""
    done = [o for o in material.outcomes if o.record]
    table = {o.subject: {**_time(material, o), **_work(material, o), **_size(o)} for o in done}
    headings = [
        heading
        for heading in (table[done[0].subject] if done else ())
        if any(row[heading] != NONE for row in table.values())
    ]
    rows = [
        {"label": material.compared.labels[run], "cells": [row[heading] for heading in headings]}
        for run, row in table.items()
    ]
    return {"headings": headings, "rows": rows}


def _time(material: Material, outcome: Outcome) -> dict[str, Figure]:
    record, scored = outcome.record, outcome.score
    seconds = cost_per_point(material, outcome)
    hours = record.train_seconds / 3600 if record.device.get("kind") == "cuda" else None
    return {
        "Training": Figure(duration(record.train_seconds), record.train_seconds),
        "GPU-hours of training": NONE if hours is None else Figure(number(hours), hours),
        "Scoring": NONE if scored is None else Figure(duration(scored.seconds), scored.seconds),
        "Training per point gained": NONE if seconds is None else Figure(duration(seconds), seconds),
    }


def cost_per_point(material: Material, outcome: Outcome) -> float | None:
    """Seconds of training per point (hundredth) of target gain; None where the gain is not proved: a gain that may be
    nothing has no price. Of several seeds it is their mean gain."""
    trades = material.compared.summary["trade_offs"]
    row = next((row for row in trades if outcome.subject in row["runs"].split()), None)
    if row is None or material.compared.unit != "share" or row["gain_verdict"] != "better":
        return None
    return outcome.record.train_seconds / (row["gain"] * 100)


def _work(material: Material, outcome: Outcome) -> dict[str, Figure]:
    record = outcome.record
    per_second = operations_per_second(material, outcome)
    share = None if per_second is None else share_of_peak(per_second, record.device)
    return {
        "Tokens": Figure(whole(record.tokens), record.tokens),
        "Samples": Figure(whole(record.samples), record.samples),
        "Updates": Figure(whole(record.steps), record.steps),
        "Tokens/s": Figure(whole(record.tokens_per_second), record.tokens_per_second),
        "Operations/s": NONE if per_second is None else Figure(operations(per_second), per_second),
        "Of the card’s peak": NONE if share is None else Figure(f"{number(100 * share, 2)}%", share),
        "Padding": Figure(score(record.padding_share, "share"), record.padding_share),
    }


def operations_per_second(material: Material, outcome: Outcome) -> float | None:
    """Operations by the plan's own count over the training time; None where the model's shape is unknown.

    The count (loragrid/models/flops.py) includes attention, held-out measurements and, on a GPU, recomputed activations.
    """
    study, record = material.study, outcome.record
    try:
        shape = find_shape(study.models[outcome.model])
    except UserError:
        return None  # a family that the plan does not know either
    if shape is None or not record.train_seconds > 0:
        return None
    data = data_size(study, outcome.cell.data, material.results)
    work = work_of(study, outcome.cell, shape, data, recomputes=record.device.get("kind") == "cuda")
    return done_flops(work, record) / record.train_seconds


def operations(per_second: float) -> str:
    """As 3.2 TFLOP/s or 45 GFLOP/s."""
    return f"{number(per_second / 1e12)} TFLOP/s" if per_second >= 1e11 else f"{number(per_second / 1e9)} GFLOP/s"


def share_of_peak(per_second: float, device: dict[str, Any]) -> float | None:
    """Of the card's peak, where config/cards.yaml knows the card."""
    card = find_card(str(device.get("name", ""))) if device.get("kind") == "cuda" else None
    return None if card is None else per_second / (card["peak_tflops"] * 1e12)


def _size(outcome: Outcome) -> dict[str, Figure]:
    record = outcome.record
    memory, kind = (record.peak_vram_mib, "GPU") if record.peak_vram_mib else (record.peak_rss_mib, "RAM")
    joules, trainable = record.energy_joules, record.trainable_parameters
    share = number(100 * trainable / record.total_parameters, 2)
    return {
        "Peak memory": Figure(f"{mebibytes(memory)} {kind}", memory),
        "Energy": NONE if joules is None else Figure(f"{number(joules / 3600)} Wh", joules),
        "Trained parameters": Figure(f"{whole(trainable)} ({share}%)", trainable),
    }


def total_cost(material: Material) -> str:
    """The time that the whole study took, and whether energy was metered."""
    records = [o.record for o in material.outcomes if o.record]
    train = sum(record.train_seconds for record in records)
    scoring = sum(o.score.seconds for o in material.outcomes if o.score)
    where = listed(sorted({visible(str(record.device.get("name")), 60) for record in records})) or "no machine"
    on_gpu = sum(record.train_seconds for record in records if record.device.get("kind") == "cuda") / 3600
    gpu = f" ({number(on_gpu)} GPU-hours of training)" if on_gpu else ""
    energy = math.fsum(record.energy_joules or 0 for record in records) / 3600
    metered = sum(record.energy_joules is not None for record in records)
    used = f" Energy was metered for {metered} of {len(records)} runs: {number(energy)} Wh." if metered else ""
    unmetered = "" if metered or not records else " Energy was not metered here."
    return f"Training took {duration(train)} and scoring {duration(scoring)} in all, on {where}{gpu}.{used}{unmetered}"
