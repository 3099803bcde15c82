"""The scores of a run and of its setting, as its card shows them: from the comparison, or from the score alone."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.exporting.exported_run import COMPARISON, ExportedRun
from loragrid.formatting import between, change_beside, decimals, listed, plain_name, score
from loragrid.records.seal import check_sealed
from loragrid.runtime.atomic_files import read_json
from loragrid.statistics.paired_statistics import WORSE

# Of a normal distribution, for a score that no comparison has given an interval.
STDERRS = 1.96


@dataclass(frozen=True, kw_only=True)
class CardScore:
    """A task's main metric of the run with its 95 % interval, and what the study found of the run's setting.

    `unit`: share or plain; `base`: the untrained base's value; `change`, `interval`, `verdict`: the setting against its
    base over `seeds`, empty texts and 0 before a comparison.
    """

    task: str
    group: str
    metric: str
    items: int
    value: float
    low: float | None
    high: float | None
    unit: str = "plain"
    base: float | None = None
    change: str = ""
    interval: str = ""
    verdict: str = ""
    seeds: int = 0

    @property
    def text(self) -> str:
        """The value with its interval."""
        if self.low is None:
            return score(self.value, self.unit, 1)
        places = decimals(self.low, self.high)
        low, high = (score(end, self.unit, places) for end in (self.low, self.high))
        return f"{score(self.value, self.unit, places)} ({low} to {high})"

    @property
    def base_text(self) -> str:
        """The base's value."""
        return score(self.base, self.unit, 1)


def read_scores(run: ExportedRun) -> list[CardScore]:
    """The run's scores, target tasks first; empty before it is scored."""
    if _is_compared(run):
        return _compared_scores(run)
    tasks = run.score.tasks if run.score is not None else {}
    found = []
    for name, task in tasks.items():
        if task.status != "scored":
            continue
        known = task.metrics[task.primary_metric]
        width = None if known["stderr"] is None else STDERRS * known["stderr"]
        low, high = (None, None) if width is None else (known["value"] - width, known["value"] + width)
        found.append(
            CardScore(
                task=name,
                group=task.group,
                metric=task.primary_metric,
                items=task.items,
                value=known["value"],
                low=low,
                high=high,
            )
        )
    return found


def forgotten(run: ExportedRun) -> str:
    """What the run's setting lost of what its base could do, in a sentence or two."""
    row = _trade_off(run)
    if row is None:
        return "Not compared with the base yet: what was forgotten is not known."
    if row["kept"] is None:
        return "Not measured: the study has no comparable retention tasks for this setting."
    over = f"over {row['seeds']} seeds" if row["seeds"] > 1 else "with one seed"
    amount = change_beside(row["kept"], row["kept_low"], row["kept_high"], "share")
    text = f"Mean change on the retention tasks against the base, {over}: {amount} "
    text += f"({between(row['kept_low'], row['kept_high'], 'share')}), {row['kept_verdict'] or 'not tested'}."
    worse = [one["task"] for one in _comparisons(run) if one["group"] == "retention" and one["verdict"] == WORSE]
    worse = [plain_name(task) for task in worse if task != POOLED_RETENTION]
    if worse:
        text += f" It did worse on {listed(worse)}."
    return text


def seeds_of_setting(run: ExportedRun) -> int:
    """The number of seeds that the study trained the run's setting with; 0 before a comparison."""
    row = _trade_off(run)
    return 0 if row is None else row["seeds"]


def _is_compared(run: ExportedRun) -> bool:
    """Whether the comparison is there and holds this run."""
    check_sealed(run.results / COMPARISON.parent)
    return (run.results / COMPARISON).is_file() and bool(_rows(run, "scores.csv"))


def _compared_scores(run: ExportedRun) -> list[CardScore]:
    tasks = read_json(run.results / COMPARISON)["tasks"]
    bases = {row["task"]: float(row["value"]) for row in _rows(run, "scores.csv", subject=run.cell.base)}
    of_setting = {row["task"]: row for row in _comparisons(run)}
    found = []
    for row in _rows(run, "scores.csv"):
        task = row["task"]
        unit = tasks[task]["unit"] if task in tasks else "plain"
        found.append(
            CardScore(
                task=task,
                group=row["group"],
                metric=row["metric"],
                items=int(row["items"]),
                value=float(row["value"]),
                low=_number(row["low"]),
                high=_number(row["high"]),
                unit=unit,
                base=bases.get(task),
                **_setting(of_setting.get(task), unit),
            )
        )
    return found


def _setting(row: Mapping[str, str] | None, unit: str) -> dict[str, Any]:
    """The change, interval, verdict and seeds of a row of comparisons.csv."""
    if row is None or _number(row["difference"]) is None:
        return {}
    low, high = _number(row["low"]), _number(row["high"])
    return {
        "change": change_beside(float(row["difference"]), low, high, unit),
        "interval": between(low, high, unit),
        "verdict": row["verdict"],
        "seeds": int(row["seeds"]),
    }


def _trade_off(run: ExportedRun) -> dict[str, Any] | None:
    if not _is_compared(run):
        return None
    rows = read_json(run.results / COMPARISON)["trade_offs"]
    return next((row for row in rows if run.name in row["runs"].split()), None)


def _comparisons(run: ExportedRun) -> list[dict[str, str]]:
    """The rows of the setting that the run belongs to."""
    path = run.results / COMPARISON.parent / "comparisons.csv"
    return [row for row in _read(path) if run.name in row["runs"].split()]


def _rows(run: ExportedRun, table: str, subject: str | None = None) -> list[dict[str, str]]:
    wanted = subject or run.name
    return [row for row in _read(run.results / COMPARISON.parent / table) if row["subject"] == wanted]


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _number(text: str) -> float | None:
    return float(text) if text and text != "nan" else None
