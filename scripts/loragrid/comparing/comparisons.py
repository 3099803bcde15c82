"""Which model is better: every setting against its untrained base, item by item; one precision against another.

A setting is what cells that differ in nothing but the seed share: its runs are averaged, item by item.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing import paired_statistics
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.power import fewest_units
from loragrid.records.outcomes import Outcome
from loragrid.runtime.atomic_files import sha256_json
from loragrid.study.grid import Cell
from loragrid.study.sections import ModelEntry
from loragrid.study.study_file import Study


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


def setting_key(cell: Cell) -> str:
    """What cells that differ in nothing but the seed share."""
    return sha256_json({key: value for key, value in cell.identity.items() if key != "seed"} | {"base": cell.base})


def settings_of(outcomes: list[Outcome]) -> list[list[Outcome]]:
    """The scored runs, those of one setting together, in the order of the grid."""
    settings: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.kind == "run" and outcome.status == "scored":
            settings.setdefault(setting_key(outcome.cell), []).append(outcome)
    return list(settings.values())


def versus_base(outcomes: list[Outcome], tables: dict[str, ItemTable], terms: Terms) -> pd.DataFrame:
    """One row per setting and task: its score minus that of its own base, untrained, on the same items.

    `run` is the setting's first run, which stands for it in other tables, `runs` all of them with spaces between.
    """
    settings, rows = settings_of(outcomes), []
    for table in tables.values():
        for base in [outcome.subject for outcome in outcomes if outcome.kind == "base"]:
            rows += _against(base, [members for members in settings if members[0].base == base], table, terms)
    return pd.DataFrame(rows)


def _against(base: str, settings: list[list[Outcome]], table: ItemTable, terms: Terms) -> list[dict[str, Any]]:
    """Rows for the settings of one base on one task; those that share the same items are tested in one go."""
    rows: list[dict[str, Any]] = []
    together: dict[bytes, list[tuple[dict[str, Any], np.ndarray]]] = {}
    for members in settings:
        runs = [run.subject for run in members]
        head = {"task": table.task, "group": table.group, "metric": table.metric, "base": base}
        head |= {"run": runs[0], "runs": " ".join(runs), "seeds": len(runs), "seed_share": 1 / len(runs)}
        missing = [subject for subject in (base, *runs) if subject not in table.values]
        if missing:
            who = "the base" if missing[0] == base else "the run"
            rows.append(head | {"reason": f"{who} has no score on {table.task}"})
            continue
        values = np.mean([table.values[run] for run in runs], axis=0)
        mask = ~np.isnan(table.values[base]) & ~np.isnan(values)
        together.setdefault(mask.tobytes(), []).append((head, values))
    for key, group in together.items():
        mask = np.frombuffer(key, dtype=bool)
        weights = table.weights[base][mask] if table.weights else None
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
    """The numbers of `stats.compare_paired` for `after` (R, n) against `before` (n,), both without the items that `mask`
    leaves out, as dicts; with too few items for any test the reason and no numbers."""
    clusters = table.clusters[mask] if table.clusters is not None else None
    units = int(mask.sum()) if clusters is None else len(set(clusters))
    if units < fewest_units(terms.alpha):
        what = "items" if clusters is None else "clusters of items"
        reason = f"only {units} independent {what} in common, too few for any difference to be proved"
        return [{"items": int(mask.sum()), "units": units, "reason": reason}] * len(after)
    before = np.broadcast_to(before, after.shape)
    options = {"confidence": terms.confidence, "draws": terms.bootstrap_draws, "seed": terms.seed}
    found = paired_statistics.compare_paired(before, after, weights=weights, clusters=clusters, **options)
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
    """One row per task and pair of untrained bases that are one model in two precisions: the lower one's score minus the
    higher one's, which is what fewer bits cost before any training."""
    bases = [o for o in outcomes if o.kind == "base" and o.status == "scored"]
    rows = []
    for high in bases:
        for low in bases:
            if not _same_but_for_precision(study.models, high.model, low.model):
                continue
            for table in tables.values():
                if high.subject in table.values and low.subject in table.values:
                    head = {"task": table.task, "group": table.group, "metric": table.metric, "unit": table.unit}
                    head |= {"high_model": high.model, "low_model": low.model, "precision": low.score.precision}
                    before, after = table.values[high.subject], table.values[low.subject]
                    mask = ~np.isnan(before) & ~np.isnan(after)
                    weights = table.weights[high.subject][mask] if table.weights else None
                    rows.append(
                        head
                        | paired_rows(table, mask, before[mask], after[mask][None], weights=weights, terms=terms)[0]
                    )
    return pd.DataFrame(rows)


def _same_but_for_precision(models: Mapping[str, ModelEntry], high: str, low: str) -> bool:
    """Whether two entries of `models` differ in their precision only, and the second's has fewer bits."""
    same = replace(models[low], precision=models[high].precision) == models[high]
    bits = [int(models[name].precision.removesuffix("bit")) for name in (high, low)]
    return same and bits[1] < bits[0]
