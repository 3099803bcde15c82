"""Effects of single settings: every axis value against the base case's, all else equal."""

from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.comparisons import NO_SCORE, Terms, paired_rows
from loragrid.comparing.item_tables import ItemTable
from loragrid.records.outcomes import Outcome
from loragrid.study.sections import BaseCase

# The grid's axes without the seed: runs that differ only in the seed are averaged.
COMPARED_AXES = ("learning_rate", "rank", "batch", "model")
# ASSUME: cells whose training tokens differ by less than 2%, or by less than one update, were
# trained on equal terms.
TOKEN_TOLERANCE = 0.02
# Codes of the `reason` column, beside those of `comparisons`.
UNEQUAL_TOKENS = "unequal_training_tokens"  # `token_ratio` says by how much
OTHER_LOSS_TOKENS = "loss_on_other_tokens"
# Runs with the base case's value and runs with another value, each under all seeds.
Pair = tuple[list[Outcome], list[Outcome]]


def versus_base_case(
    outcomes: list[Outcome],
    tables: dict[str, ItemTable],
    base_case: BaseCase,
    terms: Terms,
    *,
    heldout: dict[str, str],
) -> pd.DataFrame:
    """One row per axis value and task: the score with that value minus the base case's.

    Seeds of a setting are averaged item by item, and so are the pairs of a factorial grid.
    `heldout` maps a data id to the fingerprint of its held-out tokens: losses on different tokens
    are not compared, nor are runs trained on different numbers of tokens; such a row has a `reason`
    instead of a test. A search's winner, which departs from the base case in several settings at
    once, is an axis of its own.
    """
    rows = []
    for axis, value, default, pairs in _all_pairs(outcomes, base_case):
        head = {"axis": axis, "value": value, "base_case_value": default}
        rows += [head | _axis_row(pairs, table, terms, heldout) for table in tables.values()]
    return pd.DataFrame(rows)


def _all_pairs(outcomes: list[Outcome], base_case: BaseCase) -> list[tuple[str, str, str, list[Pair]]]:
    """(axis, value, base case's value, pairs) for every value that has a pair.

    In a pair nothing differs but the value and the seeds.
    """
    runs = [o for o in outcomes if o.kind == "run" and o.status == "scored"]
    grid = [o for o in runs if "search" not in o.cell.departs]
    found = []
    for axis in COMPARED_AXES:
        default = getattr(base_case, axis)
        by_value: dict[Any, dict[tuple, list[Outcome]]] = {}
        for outcome in grid:
            places = by_value.setdefault(getattr(outcome.cell, axis), {})
            places.setdefault(_place(outcome, axis), []).append(outcome)
        partners = by_value.pop(default, {})
        # A factorial grid has a pair per combination of the other settings, a one-factor grid one.
        for value, places in sorted(by_value.items(), key=lambda item: _order(item[0])):
            shared = [place for place in places if place in partners]
            pairs = [(partners[place], places[place]) for place in shared]
            if pairs:
                found.append((axis, axis_text(axis, value), axis_text(axis, default), pairs))
    winner = [o for o in runs if "search" in o.cell.departs]
    case = [o for o in grid if not set(o.cell.departs) - {"seed"}]
    if winner and case:
        found.append(("search", "winner", "base case", [(case, winner)]))
    return found


def _place(outcome: Outcome, without: str) -> tuple:
    """The cell's settings apart from one axis and the seed.

    Alpha is not among them, so it may change with the rank.
    """
    return tuple(str(getattr(outcome.cell, axis)) for axis in COMPARED_AXES if axis != without)


def _order(value: Any) -> tuple:
    """Numbers by size, then texts and pairs by their text."""
    if isinstance(value, int | float):
        return (0, value, "")
    return (1, 0, str(value))


def axis_text(axis: str, value: Any) -> str:
    """An axis value as the tables hold it: 0.01, 16, 2×4, llama-s."""
    if axis == "batch":
        return f"{value[0]}×{value[1]}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _axis_row(pairs: list[Pair], table: ItemTable, terms: Terms, heldout: dict[str, str]) -> dict[str, Any]:
    everyone = [o for pair in pairs for side in pair for o in side]
    tokens = [np.mean([o.record.tokens for pair in pairs for o in pair[side]]) for side in (0, 1)]
    head = {
        "task": table.task,
        "group": table.group,
        "metric": table.metric,
        "pairs": len(pairs),
        "seeds": min(len(side) for pair in pairs for side in pair),
        # Each side adds 1/seeds of one run's seed variance; the mean over n pairs divides by n².
        "seed_share": sum(1 / len(side) for pair in pairs for side in pair) / len(pairs) ** 2,
        "token_ratio": float(tokens[1] / tokens[0]),
        "equal_tokens": all(_equal_tokens(pair) for pair in pairs),
    }
    missing = [o.subject for o in everyone if o.subject not in table.values]
    if missing:
        return head | {"reason": NO_SCORE, "unscored": missing[0]}
    # More training tokens alone could explain a better score.
    if not head["equal_tokens"]:
        return head | {"reason": UNEQUAL_TOKENS}
    if table.metric == "loss" and not all(_same_tokens(pair, heldout) for pair in pairs):
        return head | {"reason": OTHER_LOSS_TOKENS}
    mask, before, after, weights = _mean_of_pairs(pairs, table)
    return head | paired_rows(table, mask, before, after[None], weights=weights, terms=terms)[0]


def _equal_tokens(pair: Pair) -> bool:
    """Whether both sides trained on as many tokens, to within one update of the larger batch."""
    means = [np.mean([o.record.tokens for o in side]) for side in pair]
    update = max(o.record.tokens / o.record.steps for side in pair for o in side if o.record.steps)
    return abs(means[1] - means[0]) <= max(TOKEN_TOLERANCE * means[0], update)


def _same_tokens(pair: Pair, heldout: dict[str, str]) -> bool:
    """Whether the held-out losses of both sides are over the same tokens."""
    return len({heldout.get(o.cell.data, o.cell.data) for side in pair for o in side}) == 1


def _mean_of_pairs(pairs: list[Pair], table: ItemTable) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """The items that all runs have (a mask), and their values before and after with weights.

    Pairs on different models may weigh the same items differently. The weights returned make the
    weighted mean of the differences equal the mean over the pairs of each pair's own weighted
    difference.
    """

    def mean_of_seeds(side: list[Outcome]) -> np.ndarray:
        return np.mean([table.values[o.subject] for o in side], axis=0)

    sides = [[mean_of_seeds(side) for side in pair] for pair in pairs]
    mask = ~np.isnan(np.sum(sides, axis=(0, 1)))
    before, after = (np.array([pair[side][mask] for pair in sides]) for side in (0, 1))
    if table.weights is None:
        return mask, before.mean(axis=0), after.mean(axis=0), None
    weights = np.array([table.weights[pair[0][0].subject][mask] for pair in pairs])
    share = weights / weights.sum(axis=1, keepdims=True)
    whole = share.sum(axis=0)
    return mask, (share * before).sum(axis=0) / whole, (share * after).sum(axis=0) / whole, whole
