"""Which model is better: every run against its untrained base, every axis against the base case, item by item."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from study import stats
from study.durable import sha256_json
from study.grid import Cell
from study.item_tables import ItemTable
from study.outcomes import Outcome

AXES = ("learning_rate", "rank", "batch", "model")
# Under so few shared items no test can find anything after correction; the pair is named as not compared.
FEWEST_ITEMS = 5


@dataclass(frozen=True)
class Terms:
    """How differences are judged: the study file's `compare` section."""

    correction: str
    alpha: float
    power: float
    bootstrap_draws: int
    seed: int
    retention_margin: float

    @property
    def confidence(self) -> float:
        return 1 - self.alpha


def versus_base(outcomes: list[Outcome], tables: dict[str, ItemTable], terms: Terms) -> pd.DataFrame:
    """One row per run and task: the run's score minus that of its own base, untrained, on the same items."""
    rows = []
    for table in tables.values():
        for base in [outcome for outcome in outcomes if outcome.kind == "base"]:
            runs = [o for o in outcomes if o.kind == "run" and o.base == base.subject and o.status == "scored"]
            rows += _against(base.subject, [run.subject for run in runs], table, terms)
    return pd.DataFrame(rows)


def _against(base: str, runs: list[str], table: ItemTable, terms: Terms) -> list[dict[str, Any]]:
    """Rows for the runs of one base on one task; runs that share the same items are tested in one go."""
    head = {"task": table.task, "group": table.group, "metric": table.metric, "base": base}
    together: dict[bytes, list[str]] = {}
    rows = []
    for run in runs:
        if run not in table.values or base not in table.values:
            who = "the base" if base not in table.values else "the run"
            rows.append(head | {"run": run, "reason": f"{who} has no score on {table.task}"})
            continue
        mask = ~np.isnan(table.values[base]) & ~np.isnan(table.values[run])
        together.setdefault(mask.tobytes(), []).append(run)
    for key, members in together.items():
        mask = np.frombuffer(key, dtype=bool)
        b = np.stack([table.values[run][mask] for run in members]) if members else np.empty((0, 0))
        found = _paired_rows(table, mask, table.values[base][mask], b, weights_of=base, terms=terms)
        for run, row in zip(members, found):
            row = {key.replace("a_value", "base_value").replace("b_value", "value"): v for key, v in row.items()}
            rows.append(head | {"run": run} | row)
    return rows


def _paired_rows(
    table: ItemTable, mask: np.ndarray, a: np.ndarray, b: np.ndarray, *, weights_of: str, terms: Terms
) -> list[dict[str, Any]]:
    """The numbers of `stats.compare_paired` as dicts; too few shared items give a reason and no numbers."""
    units = len(np.unique(table.clusters[mask])) if table.clusters is not None else int(mask.sum())
    if units < FEWEST_ITEMS:
        return [{"items": int(mask.sum()), "reason": f"only {units} independent items in common"}] * len(b)
    weights = table.weights[weights_of][mask] if table.weights else None
    if weights is not None and np.isnan(weights).any():
        weights = None
    clusters = table.clusters[mask] if table.clusters is not None else None
    a = np.broadcast_to(a, b.shape)
    found = stats.compare_paired(
        a,
        b,
        weights=weights,
        clusters=clusters,
        confidence=terms.confidence,
        draws=terms.bootstrap_draws,
        seed=terms.seed,
    )
    means = [np.average(values, axis=1, weights=weights) for values in (a, b)]
    return [
        {
            "items": int(mask.sum()),
            "units": found.units,
            "binary": found.binary,
            "a_value": means[0][i],
            "b_value": means[1][i],
            "difference": found.difference[i],
            "low": found.low[i],
            "high": found.high[i],
            "stderr": found.stderr[i],
            "spread": found.spread[i],
            "p": found.p[i],
            "method": found.method[i],
        }
        for i in range(len(b))
    ]


def setting_key(cell: Cell) -> str:
    """What cells that differ in nothing but the seed share."""
    return sha256_json({key: value for key, value in cell.identity.items() if key != "seed"} | {"base": cell.base})


def _place(cell: Cell, without: str) -> tuple:
    """The cell's settings apart from one axis and the seed; alpha moves with rank where the study says so."""
    return tuple(str(getattr(cell, axis)) for axis in AXES if axis != without)


def versus_base_case(
    outcomes: list[Outcome],
    tables: dict[str, ItemTable],
    base_case: dict[str, Any],
    terms: Terms,
    *,
    heldout: dict[str, str],
) -> pd.DataFrame:
    """One row per axis value and task: runs with that value minus runs with the base case's value, all else equal.

    Seeds of a setting are averaged item by item, and so are the pairs of a factorial grid. Where any setting was trained
    under several seeds, the spread between seeds widens the interval. `heldout`: data id → fingerprint of the held-out
    tokens; losses on different tokens are not compared, and the row says so. A search's winner, which leaves the base case
    on several settings at once, is an axis of its own.
    """
    runs = [o for o in outcomes if o.kind == "run" and o.status == "scored"]
    scored = [o for o in runs if "search" not in o.cell.departs]
    rows = []
    for axis in AXES:
        default = tuple(base_case[axis]) if axis == "batch" else base_case[axis]
        partners: dict[tuple, list[Outcome]] = {}
        for outcome in scored:
            if getattr(outcome.cell, axis) == default:
                partners.setdefault(_place(outcome.cell, axis), []).append(outcome)
        values: dict[Any, dict[tuple, list[Outcome]]] = {}
        for outcome in scored:
            if getattr(outcome.cell, axis) != default:
                values.setdefault(getattr(outcome.cell, axis), {}).setdefault(_place(outcome.cell, axis), []).append(
                    outcome
                )
        for value, places in sorted(values.items(), key=lambda item: _order(item[0])):
            pairs = [(partners[place], members) for place, members in places.items() if place in partners]
            if pairs:
                head = {"axis": axis, "value": axis_text(axis, value), "base_case_value": axis_text(axis, default)}
                rows += [head | _axis_row(pairs, table, terms, heldout) for table in tables.values()]
    winner = [o for o in runs if "search" in o.cell.departs]
    case = [o for o in scored if not o.cell.departs]
    if winner and case:
        head = {"axis": "search", "value": "winner", "base_case_value": "base case"}
        rows += [head | _axis_row([(case, winner)], table, terms, heldout) for table in tables.values()]
    return pd.DataFrame(rows)


def _order(value: Any) -> tuple:
    return (0, value, "") if isinstance(value, int | float) else (1, 0, str(value))


def axis_text(axis: str, value: Any) -> str:
    """An axis value as text: 0.01, 16, 2×4, llama-s."""
    if axis == "batch":
        return f"{value[0]}×{value[1]}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _axis_row(
    pairs: list[tuple[list[Outcome], list[Outcome]]], table: ItemTable, terms: Terms, heldout: dict[str, str]
) -> dict[str, Any]:
    everyone = [o for pair in pairs for side in pair for o in side]
    head = {
        "task": table.task,
        "group": table.group,
        "metric": table.metric,
        "pairs": len(pairs),
        "seeds": min(len(side) for pair in pairs for side in pair),
        "token_ratio": _tokens([o for _, side in pairs for o in side])
        / _tokens([o for side, _ in pairs for o in side]),
    }
    missing = [o.subject for o in everyone if o.subject not in table.values]
    if missing:
        return head | {"reason": f"{missing[0]} has no score on {table.task}"}
    if table.metric == "loss" and len({heldout.get(o.cell.data, o.cell.data) for o in everyone}) > 1:
        return head | {"reason": "not comparable: losses on different tokens (another tokenizer or chat template)"}
    a = np.mean([np.mean([table.values[o.subject] for o in side], axis=0) for side, _ in pairs], axis=0)
    b = np.mean([np.mean([table.values[o.subject] for o in side], axis=0) for _, side in pairs], axis=0)
    mask = ~np.isnan(a) & ~np.isnan(b)
    row = _paired_rows(table, mask, a[mask], b[mask][None], weights_of=everyone[0].subject, terms=terms)[0]
    row = {key.replace("a_value", "base_case_score").replace("b_value", "score"): value for key, value in row.items()}
    share = sum(1 / len(side) for pair in pairs for side in pair) / len(pairs) ** 2
    return head | row | {"seed_share": share}


def _tokens(outcomes: list[Outcome]) -> float:
    return float(np.mean([o.record.tokens for o in outcomes]))
