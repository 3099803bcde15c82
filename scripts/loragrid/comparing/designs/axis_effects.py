"""Effects of single settings: every axis value against the base case's, all else equal."""

from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.comparisons import NO_SCORE, Terms, paired_rows
from loragrid.comparing.designs.axis_pairs import Pair, axis_values
from loragrid.comparing.designs.data_sizes import same_but_for_rows
from loragrid.comparing.item_tables import ItemTable
from loragrid.records.outcomes import Outcome
from loragrid.study.study_file import Study

# ASSUME: cells whose training tokens differ by less than 2%, or by less than one update, were
# trained on equal terms.
TOKEN_TOLERANCE = 0.02
# Codes of the `reason` column, beside those of `comparisons`.
UNEQUAL_TOKENS = "unequal_training_tokens"  # `token_ratio` says by how much
OTHER_LOSS_TOKENS = "loss_on_other_tokens"


def versus_base_case(
    outcomes: list[Outcome], tables: dict[str, ItemTable], study: Study, terms: Terms, *, heldout: dict[str, str]
) -> pd.DataFrame:
    """One row per axis value and task: the score with that value minus the base case's.

    Seeds of a setting are averaged item by item, and so are the pairs of a factorial grid.
    `heldout` maps a data id to the fingerprint of its held-out tokens: losses on different tokens
    are not compared, nor are runs trained on different numbers of tokens unless the study asks for
    them; such a row has a `reason` instead of a test.
    """
    rows = []
    for value in axis_values(outcomes, study):
        head = {"axis": value.axis, "value": value.value, "base_case_value": value.base_case_value}
        for table in tables.values():
            rows.append(head | _axis_row(value.pairs, table, terms, study, heldout))
    return pd.DataFrame(rows)


def _axis_row(
    pairs: list[Pair], table: ItemTable, terms: Terms, study: Study, heldout: dict[str, str]
) -> dict[str, Any]:
    everyone = [o for pair in pairs for side in pair for o in side]
    head = {
        "task": table.task,
        "group": table.group,
        "metric": table.metric,
        "pairs": len(pairs),
        "seeds": min(len(side) for pair in pairs for side in pair if side[0].record),
        # Each side adds 1/seeds of one run's seed variance, an untrained base nothing; the mean over
        # n pairs divides by n².
        "seed_share": sum(1 / len(side) for pair in pairs for side in pair if side[0].record) / len(pairs) ** 2,
        "token_ratio": _token_ratio(pairs),
        "equal_tokens": all(equal_tokens(pair) or intended(pair, study) for pair in pairs),
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


def _token_ratio(pairs: list[Pair]) -> float | None:
    trained = [pair for pair in pairs if pair[1][0].record]
    if not trained:
        return None
    tokens = [np.mean([o.record.tokens for pair in trained for o in pair[side]]) for side in (0, 1)]
    return float(tokens[1] / tokens[0])


def intended(pair: Pair, study: Study) -> bool:
    """Whether the study asks for the runs' unequal tokens: another budget, another number of rows, or no training."""
    before, after = pair[0][0].cell, pair[1][0].cell
    if after is None or before.settings.budget != after.settings.budget:
        return True
    return same_but_for_rows(study.data, before.settings.data, after.settings.data)


def equal_tokens(pair: Pair) -> bool:
    """Whether both sides trained on as many tokens, to within one update of the larger batch."""
    if not pair[1][0].record:
        return False
    means = [np.mean([o.record.tokens for o in side]) for side in pair]
    update = max(o.record.tokens / o.record.steps for side in pair for o in side if o.record.steps)
    return abs(means[1] - means[0]) <= max(TOKEN_TOLERANCE * means[0], update)


def _same_tokens(pair: Pair, heldout: dict[str, str]) -> bool:
    """Whether the held-out losses of both sides are over the same tokens."""
    # An untrained base is scored on its runs' held-out rows.
    data = [o.cell.data for side in pair for o in side if o.cell]
    return len({heldout.get(name, name) for name in data}) == 1


def _mean_of_pairs(pairs: list[Pair], table: ItemTable) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """The items that all runs have (a mask), and their values before and after with weights.

    Pairs on different models may weigh the same items differently. The weights returned make the
    weighted mean of the differences equal the mean over the pairs of each pair's own weighted
    difference.
    """
    sides = [[mean_of_seeds(side, table) for side in pair] for pair in pairs]
    mask = ~np.isnan(np.sum(sides, axis=(0, 1)))
    before, after = (np.array([pair[side][mask] for pair in sides]) for side in (0, 1))
    if table.weights is None:
        return mask, before.mean(axis=0), after.mean(axis=0), None
    weights = np.array([table.weights[pair[0][0].subject][mask] for pair in pairs])
    share = weights / weights.sum(axis=1, keepdims=True)
    whole = share.sum(axis=0)
    return mask, (share * before).sum(axis=0) / whole, (share * after).sum(axis=0) / whole, whole


def mean_of_seeds(runs: list[Outcome], table: ItemTable) -> np.ndarray:
    """The item values of runs that differ in the seed alone, averaged; NaN where one lacks an item."""
    return np.mean([table.values[outcome.subject] for outcome in runs], axis=0)
