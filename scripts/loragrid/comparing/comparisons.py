"""Comparisons of every setting with its untrained base, and of one model in two precisions.

Runs that differ only in the seed share a setting; their values are averaged item by item.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from loragrid.comparing.contrasts import ADAPTERS, Side, contrast_row, level_of, paired_columns, units_of_items
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.measures import EXPLORATORY, Measure, Spreads
from loragrid.comparing.terms import Terms
from loragrid.records.outcomes import Outcome
from loragrid.statistics.power import fewest_units
from loragrid.study.cell_pairs import setting_key
from loragrid.study.study_file import Study


def settings_of(outcomes: list[Outcome]) -> list[list[Outcome]]:
    """The scored runs grouped by setting, in the grid's order, and each adopted adapter by itself."""
    settings: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.kind != "base" and outcome.status == "scored":
            key = setting_key(outcome.cell) if outcome.cell else outcome.subject
            settings.setdefault(key, []).append(outcome)
    return list(settings.values())


def side_of(runs: Sequence[Outcome], coefficient: float) -> Side:
    """Runs of one setting, or an untrained base, as a side of a comparison."""
    return Side(tuple(run.subject for run in runs), coefficient, trained=runs[0].kind != "base")


def versus_base(
    outcomes: list[Outcome], measures: Sequence[Measure], spreads: Spreads, terms: Terms
) -> list[dict[str, Any]]:
    """One row per setting and measure: its score minus its untrained base's, on the same items.

    `run` is the setting's first run, which represents it in other tables; `runs` lists all of them,
    separated by spaces.
    """
    settings, rows = settings_of(outcomes), []
    bases = [outcome for outcome in outcomes if outcome.kind == "base"]
    for measure in measures:
        for base in bases:
            own = [members for members in settings if members[0].base == base.subject]
            rows += _against(base, own, measure, spreads, terms)
    return rows


def _against(
    base: Outcome, settings: list[list[Outcome]], measure: Measure, spreads: Spreads, terms: Terms
) -> list[dict[str, Any]]:
    """Rows for the settings of one base on one measure."""
    rows: list[dict[str, Any]] = []
    alone: list[tuple[dict[str, Any], str]] = []
    for members in settings:
        place = [side_of([base], -1.0), side_of(members, 1.0)]
        runs = place[1].subjects
        head = {"base": base.subject, "run": runs[0], "runs": " ".join(runs), "seeds": len(runs)}
        one_adapter = len(measure.tables) == 1 and len(runs) == 1 and level_of([place]) == ADAPTERS
        if one_adapter and measure.lacks((base.subject, *runs)) is None:
            alone.append((head, runs[0]))
        else:
            rows.append(head | contrast_row(measure, [place], spreads, terms))
    return rows + _adapters_together(base.subject, alone, measure, terms)


def _adapters_together(
    base: str, alone: list[tuple[dict[str, Any], str]], measure: Measure, terms: Terms
) -> list[dict[str, Any]]:
    """Rows for single adapters, those on the same items tested in one call, because many calls are slow."""
    table, together = measure.tables[0], {}
    for head, run in alone:
        mask = ~np.isnan(table.values[base] + table.values[run])
        together.setdefault(mask.tobytes(), []).append((head, run))
    rows = []
    for key, group in together.items():
        mask = np.frombuffer(key, dtype=bool)
        after = np.stack([table.values[run][mask] for _, run in group])
        found = adapter_rows(
            table, mask, table.values[base][mask], after, weights=table.weights_of(base, mask), terms=terms
        )
        rows += [head | measure.head | row for (head, _), row in zip(group, found)]
    return rows


def adapter_rows(
    table: ItemTable,
    mask: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    *,
    weights: np.ndarray | None,
    terms: Terms,
) -> list[dict[str, Any]]:
    """Models `after` (R, n) compared with one model `before` (n,), as R dicts of table columns.

    `mask` says which of the table's items the arrays hold. With too few items for any test the
    dicts hold a reason.
    """
    units, reason = units_of_items(table, mask)
    head = {"level": ADAPTERS, "items": int(mask.sum()), "items_total": len(mask), "requests": table.requests_of(mask)}
    if units < fewest_units(terms.alpha):
        return [head | {"units": units, "reason": reason}] * len(after)
    found = paired_columns(table, mask, before, after, weights, terms)
    scores = np.average(after, axis=1, weights=weights)
    reference = float(np.average(before, weights=weights))
    return [head | {"reference_score": reference, "score": float(scores[i])} | row for i, row in enumerate(found)]


def versus_precision(
    study: Study, outcomes: list[Outcome], measures: Sequence[Measure], terms: Terms
) -> list[dict[str, Any]]:
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
            for measure in measures:
                if measure.lacks((high.subject, low.subject)) is None:
                    rows.append(_precision_row(study, high, low, measure, terms))
    return rows


def _precision_row(study: Study, high: Outcome, low: Outcome, measure: Measure, terms: Terms) -> dict[str, Any]:
    head = {"unit": measure.unit}
    head |= {"high_base": high.subject, "high_precision": study.bases[high.subject].settings.precision}
    head |= {"low_base": low.subject, "low_model": low.model, "precision": low.score.precision}
    row = contrast_row(measure, [[side_of([high], -1.0), side_of([low], 1.0)]], {}, terms)
    # A base's precision is not what the study is about, so it takes no part in the families of settings.
    return head | row | {"family": EXPLORATORY}


def _same_but_for_precision(study: Study, high: str, low: str) -> bool:
    """Whether two bases are one model and differ in their precision, the second having fewer bits."""
    cells = study.bases.get(high), study.bases.get(low)
    if None in cells:
        return False
    models = [study.models[cell.model] for cell in cells]
    bits = [int(cell.settings.precision.removesuffix("bit")) for cell in cells]
    return models[0] == models[1] and bits[1] < bits[0]
