"""Paired comparisons of every setting with its untrained base, and of one model in two precisions.

Runs that differ only in the seed share a setting; their values are averaged item by item.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.statistics import paired_statistics
from loragrid.comparing.statistics.power import fewest_units
from loragrid.comparing.statistics.sign_flips import Draws
from loragrid.records.outcomes import Outcome
from loragrid.runtime.atomic_files import sha256_json
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study

# Codes of the `reason` column: why a row has no test. The report words them with the row's numbers.
NO_SCORE = "no_score"  # `unscored` names the subject
TOO_FEW_ITEMS, TOO_FEW_CLUSTERS = "too_few_items", "too_few_clusters"  # `units` is their number


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
        """Coverage of the intervals, 1 - alpha."""
        return 1 - self.alpha

    @property
    def draws(self) -> Draws:
        """Number and seed of the random sign flips."""
        return Draws(self.bootstrap_draws, self.seed)


def setting_key(cell: Cell) -> str:
    """A key that two cells share when they differ only in the seed."""
    return sha256_json({key: value for key, value in cell.identity.items() if key != "seed"} | {"base": cell.base})


def settings_of(outcomes: list[Outcome]) -> list[list[Outcome]]:
    """The scored runs grouped by setting, in the grid's order, and each adopted adapter by itself."""
    settings: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.kind != "base" and outcome.status == "scored":
            key = setting_key(outcome.cell) if outcome.cell else outcome.subject
            settings.setdefault(key, []).append(outcome)
    return list(settings.values())


def versus_base(outcomes: list[Outcome], tables: dict[str, ItemTable], terms: Terms) -> pd.DataFrame:
    """One row per setting and task: its score minus its untrained base's, on the same items.

    `run` is the setting's first run, which represents it in other tables; `runs` lists all of them,
    separated by spaces. A row without a test has its code in `reason` and no p value.
    """
    settings, rows = settings_of(outcomes), []
    for table in tables.values():
        for base in [outcome.subject for outcome in outcomes if outcome.kind == "base"]:
            rows += _against(base, [members for members in settings if members[0].base == base], table, terms)
    return pd.DataFrame(rows)


def _against(base: str, settings: list[list[Outcome]], table: ItemTable, terms: Terms) -> list[dict[str, Any]]:
    """Rows for the settings of one base on one task."""
    rows: list[dict[str, Any]] = []
    # Settings scored on the same items are tested in one call, because many calls are slow.
    together: dict[bytes, list[tuple[dict[str, Any], np.ndarray]]] = {}
    for members in settings:
        runs = [run.subject for run in members]
        head = {"task": table.task, "group": table.group, "metric": table.metric, "base": base}
        # The seed variance of a mean over seeds is one run's divided by them; a base has none.
        head |= {"run": runs[0], "runs": " ".join(runs), "seeds": len(runs), "seed_share": 1 / len(runs)}
        missing = [subject for subject in (base, *runs) if subject not in table.values]
        if missing:
            rows.append(head | {"reason": NO_SCORE, "unscored": missing[0]})
            continue
        values = np.mean([table.values[run] for run in runs], axis=0)
        mask = ~np.isnan(table.values[base]) & ~np.isnan(values)
        together.setdefault(mask.tobytes(), []).append((head, values))
    for key, group in together.items():
        mask = np.frombuffer(key, dtype=bool)
        weights = table.weights_of(base, mask)
        after = np.stack([values[mask] for _, values in group])
        found = paired_rows(table, mask, table.values[base][mask], after, weights=weights, terms=terms)
        rows += [head | row for (head, _), row in zip(group, found)]
    return rows


def paired_rows(
    table: ItemTable,
    mask: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    *,
    weights: np.ndarray | None,
    terms: Terms,
) -> list[dict[str, Any]]:
    """`after` (R, n) compared with `before` (n,), as R dicts of table columns.

    `mask` says which of the table's items the arrays hold. With too few items for any test the
    dicts hold a reason.
    """
    clusters, reason, units = table.clusters_of(mask), TOO_FEW_ITEMS, int(mask.sum())
    if clusters is not None:
        reason, units = TOO_FEW_CLUSTERS, len(set(clusters))
    # With so few units even the most extreme outcome is not significant.
    if units < fewest_units(terms.alpha):
        return [{"items": int(mask.sum()), "units": units, "reason": reason}] * len(after)
    before = np.broadcast_to(before, after.shape)
    found = paired_statistics.compare_paired(
        before, after, weights=weights, clusters=clusters, confidence=terms.confidence, draws=terms.draws
    )
    means = [np.average(values, axis=1, weights=weights) for values in (before, after)]
    columns = ("difference", "low", "high", "stderr", "test_stderr", "p", "method")
    return [
        {"items": int(mask.sum()), "units": found.units, "binary": found.binary}
        | {"reference_score": means[0][i], "score": means[1][i]}
        | {name: getattr(found, name)[i] for name in columns}
        | {"df": found.df, "least_p": found.least_p}
        for i in range(len(after))
    ]


def versus_precision(study: Study, outcomes: list[Outcome], tables: dict[str, ItemTable], terms: Terms) -> pd.DataFrame:
    """One row per task and pair of untrained bases that are one model in two precisions.

    The difference is the lower precision's score minus the higher one's: the cost of fewer bits
    before any training.
    """
    bases = [o for o in outcomes if o.kind == "base" and o.status == "scored"]
    rows = []
    for high in bases:
        for low in bases:
            if not _same_but_for_precision(study, high.subject, low.subject):
                continue
            for table in tables.values():
                if high.subject in table.values and low.subject in table.values:
                    rows.append(_precision_row(study, high, low, table, terms))
    return pd.DataFrame(rows)


def _precision_row(study: Study, high: Outcome, low: Outcome, table: ItemTable, terms: Terms) -> dict[str, Any]:
    head = {"task": table.task, "group": table.group, "metric": table.metric, "unit": table.unit}
    head |= {"high_base": high.subject, "high_precision": study.bases[high.subject].settings.precision}
    head |= {"low_base": low.subject, "low_model": low.model, "precision": low.score.precision}
    before, after = table.values[high.subject], table.values[low.subject]
    mask = ~np.isnan(before) & ~np.isnan(after)
    weights = table.weights_of(high.subject, mask)
    return head | paired_rows(table, mask, before[mask], after[mask][None], weights=weights, terms=terms)[0]


def _same_but_for_precision(study: Study, high: str, low: str) -> bool:
    """Whether two bases are one model and differ in their precision, the second having fewer bits."""
    cells = study.bases.get(high), study.bases.get(low)
    if None in cells:
        return False
    models = [study.models[cell.model] for cell in cells]
    bits = [int(cell.settings.precision.removesuffix("bit")) for cell in cells]
    return models[0] == models[1] and bits[1] < bits[0]
