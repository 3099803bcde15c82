"""Logs of training: rows of steps are curves of one run, of many forms and tools."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from loragrid.comparing.diagnosing.run_evidence import LossPath
from loragrid.external.columns import first_of, is_held_out_score, setting_of
from loragrid.external.directions import LOSS_WORDS, known_direction, name_words
from loragrid.external.runs import Curve, ExternalRun, ExternalScore, as_float, is_number

STEPS = (
    *("step", "global_step", "_step", "current_steps", "train/global_step", "trainer/global_step"),
    *("iteration", "iter", "update"),
)
EPOCH = "epoch"
# Settings that rows of a log may differ in.
SCHEDULED = ("steps", "epochs", "learning_rate", "batch", "limit", "split", "metric")
# Tokens seen so far. TRL prefixes its own count in rows of evaluations.
TOKENS = (
    *("num_input_tokens_seen", "train/num_input_tokens_seen", "num_tokens", "eval_num_tokens", "train/num_tokens"),
    *("total_tokens", "tokens", "tokens_seen"),
)
TRAIN_LOSSES = (
    *("loss", "train_loss", "train/loss", "train loss", "training_loss", "train_mean_nll", "train/nll", "train_nll"),
    *("train/train_loss", "training loss"),
)
# Of several evaluation sets, the one whose loss is the run's held-out loss.
HELD_OUT_LOSSES = ("eval_loss", "eval/loss", "val_loss", "valid_loss", "validation_loss", "test/nll", "val/loss")
GRADIENT_NORMS = ("grad_norm", "train/grad_norm", "gradient_norm")
RATES = ("learning_rate", "lr", "train/learning_rate")
# A Trainer's last row repeats means over the whole run.
SUMMARY = ("train_runtime", "total_flos")
# How files of one run rank: a state holds the whole history of its run, a file of one column a part of it.
STATE, ROWS, COLUMN = 0, 1, 2
# Columns of W&B's export of a chart: "run - eval/loss", with the smoothed ends beside it.
CHART_COLUMN = re.compile(r"(.+?) - (.+?)(__MIN|__MAX)?")
# TensorBoard's export of one curve: run-NAME-tag-TAG.csv.
TENSORBOARD_NAME = re.compile(r"run-(.+)-tag-(.+)")
Row = Mapping[str, Any]


def is_step_log(rows: list[Any]) -> bool:
    """Whether rows are steps of one run: they count up, and no column names several runs."""
    rows = [_lower(row) for row in rows if isinstance(row, dict)]
    places = [place for row in rows if (place := place_of(row)) is not None]
    # In a log nothing changes but what a schedule changes: rows of other ranks or data are other runs.
    if any(len(values) > 1 for values in _fixed_settings(rows).values()):
        return False
    if len(set(places)) < 2 or len(places) < len(rows) / 2:
        return False
    if any(first_of(row, STEPS) is not None for row in rows):
        return True
    # An epoch alone may be a setting of a run; beside a loss it is the place in a log.
    return any(LOSS_WORDS & name_words(key) for row in rows for key in row)


def _fixed_settings(rows: list[Row]) -> dict[str, set[str]]:
    """Setting → its values in the rows, for settings that no training changes on its way."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row.items():
            setting = setting_of(key, value) if value is not None else None
            if setting is not None and setting[0] not in SCHEDULED:
                found.setdefault(setting[0], set()).add(str(setting[1]))
    return found


def unused_scores(run: ExternalRun) -> list[str]:
    """Scores in a run's log whose names do not say that their rows were held out."""
    names = dict.fromkeys(key for rows in run.logs.values() for row in rows for key in row)
    losses = {*TRAIN_LOSSES, *held_out_losses(names)}
    return [
        name
        for name in names
        if known_direction(name) is not None and not is_held_out_score(name) and name not in losses
    ]


def place_of(row: Row) -> float | None:
    """The step of a row, or else its epoch."""
    step = first_of(row, STEPS)
    return step if step is not None else first_of(row, (EPOCH,))


def chart_rows(rows: list[Row]) -> dict[str, list[Row]]:
    """Run → rows of W&B's export of a chart, whose columns are “run - metric”; empty if it is none."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        place = place_of(_lower(row))
        for key, value in row.items():
            column = CHART_COLUMN.fullmatch(str(key))
            if column and not column[3] and is_number(value) and place is not None:
                found.setdefault(column[1], []).append({"step": place, column[2]: value})
    return found


def tensorboard_rows(rows: list[Any], stem: str) -> tuple[str, list[Row]]:
    """The run's name, empty if the file's name has none, and the rows of TensorBoard's export of a curve."""
    named = TENSORBOARD_NAME.fullmatch(stem)
    run, tag = (named[1], named[2]) if named else ("", stem)
    found = []
    for row in rows:
        if isinstance(row, dict):
            lower = _lower(row)
            row = [lower.get("wall time"), lower.get("step"), lower.get("value")]
        if isinstance(row, list) and len(row) == 3 and is_number(row[1]) and is_number(row[2]):
            found.append({"step": row[1], tag: row[2]})
    return run, found


def is_tensorboard(rows: list[Any]) -> bool:
    """Whether rows are (wall time, step, value), as a table or as lists of three numbers."""
    first = rows[0] if rows else None
    if isinstance(first, list):
        return len(first) == 3 and all(is_number(value) for value in first)
    return isinstance(first, dict) and {"wall time", "step", "value"} <= set(_lower(first))


def add_log(run: ExternalRun, rows: Iterable[Any], kind: int) -> None:
    """Keep the rows of a log; of several states of a run the last one holds the history of all."""
    rows = [_lower(row) for row in rows if isinstance(row, dict)]
    known = run.logs.get(kind, [])
    if kind == COLUMN:
        run.logs[kind] = [*known, *rows]
    elif _last(rows) >= _last(known):
        run.logs[kind] = rows


def finish_log(run: ExternalRun) -> None:
    """Turn the best log of a run into its losses, curves and last scores."""
    if not run.logs:
        return
    rows = run.logs[min(run.logs)]
    placed = sorted((row for row in rows if place_of(row) is not None), key=place_of)
    steps = _last(rows)
    run.path_unit, places = _places(placed)
    _add_losses(run, placed, places)
    for name in dict.fromkeys(key for row in rows for key in row if is_held_out_score(key)):
        points = [(as_float(place), row[name]) for row, place in zip(placed, places) if is_number(row.get(name))]
        last = points[-1][1] if points else next(row[name] for row in reversed(rows) if name in row)
        if not is_number(last):
            continue
        if points:
            run.curves[name] = Curve(*(np.array(column, dtype=float) for column in zip(*points)))
        run.scores.setdefault((name, ""), ExternalScore(float(last), None, None, conditions={"steps": steps}))
    run.settings.setdefault("steps" if run.path_unit != "epochs" else "epochs", steps)
    # The highest logged rate: with warm-up and a schedule this is the one that was set, or nearly. One rate alone may
    # be that of a schedule's end.
    rates = [rate for row in rows if (rate := first_of(row, RATES)) is not None]
    if len(rates) > 1:
        run.rate_from_log = "learning_rate" not in run.settings
        # Rounded, because between two logged steps the schedule has moved on.
        run.settings.setdefault("learning_rate", float(f"{max(rates):.3g}"))


def held_out_losses(names: Iterable[str]) -> list[str]:
    """The names of held-out losses, the run's main one first."""
    found = [name for name in names if is_held_out_score(name) and name_words(name) & LOSS_WORDS]
    main = [name for name in HELD_OUT_LOSSES if name in found]
    return list(dict.fromkeys([*main, *found]))


def _places(rows: list[Row]) -> tuple[str, list[float]]:
    """The unit of a log's x axis, and each row's place on it: tokens if every loss has a count that grows."""
    losses = [row for row in rows if first_of(row, TRAIN_LOSSES) is not None or held_out_losses(row)]
    counts = [first_of(row, TOKENS) for row in losses]
    if counts and None not in counts and counts == sorted(counts) and len(set(counts)) > len(counts) / 2:
        return "tokens", [first_of(row, TOKENS) for row in rows]
    unit = "steps" if any(first_of(row, STEPS) is not None for row in rows) else "epochs"
    return unit, [place_of(row) for row in rows]


def _add_losses(run: ExternalRun, rows: list[Row], places: list[float]) -> None:
    train, heldout = [], []
    held_out_names = held_out_losses(dict.fromkeys(key for row in rows for key in row))[:1]
    for row, place in zip(rows, places):
        trained = None if any(key in row for key in SUMMARY) else _loss(row, TRAIN_LOSSES)
        if trained is not None:
            train.append((as_float(place), trained, as_float(first_of(row, GRADIENT_NORMS))))
        held_out = _loss(row, held_out_names)
        if held_out is not None:
            heldout.append((as_float(place), held_out))
    if train or heldout:
        train, heldout = np.array(train, dtype=float).reshape(-1, 3), np.array(heldout, dtype=float).reshape(-1, 2)
        run.path = LossPath(train[:, 0], train[:, 1], train[:, 2], heldout[:, 0], heldout[:, 1])


def _loss(row: Row, names: Iterable[str]) -> float | None:
    """The first of the named losses, which may be NaN; None for an empty cell, or words such as “No log”."""
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if value is None or (isinstance(value, str) and str(as_float(value)) == "nan" != value.strip().lower()):
        return None
    return as_float(value)


def _last(rows: list[Row]) -> float:
    return max((place for row in rows if (place := place_of(row)) is not None), default=-1)


def _lower(row: Row) -> dict[str, Any]:
    return {str(key).strip().lower(): value for key, value in row.items()}
