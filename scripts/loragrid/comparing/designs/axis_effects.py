"""Effects of single settings: every axis value against the base case's, all else equal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loragrid.comparing.comparisons import side_of
from loragrid.comparing.contrasts import Place, contrast_row, level_of
from loragrid.comparing.designs.axis_pairs import Pair, axis_values
from loragrid.comparing.designs.data_sizes import same_but_for_rows
from loragrid.comparing.item_tables import rows_in
from loragrid.comparing.measures import Measure, Spreads
from loragrid.comparing.terms import Terms
from loragrid.records.outcomes import Outcome
from loragrid.study.study_file import Study

# ASSUME: cells whose training tokens differ by less than 2%, or by less than one update, were
# trained on equal terms.
TOKEN_TOLERANCE = 0.02
# Codes of the `reason` column, beside those of `comparisons`.
UNEQUAL_TOKENS = "unequal_training_tokens"  # `token_ratio` says by how much
OTHER_LOSS_TOKENS = "loss_on_other_tokens"


@dataclass(frozen=True)
class Comparability:
    """What decides whether runs may be compared.

    `heldout` maps a data id to the fingerprint of its held-out tokens. `by_byte`: the measure that
    takes the place of losses on different tokens, or None.
    """

    study: Study
    heldout: Mapping[str, str]
    by_byte: Measure | None = None


def versus_base_case(
    outcomes: list[Outcome], measures: Sequence[Measure], spreads: Spreads, terms: Terms, where: Comparability
) -> list[dict[str, Any]]:
    """One row per axis value and measure: the score with that value minus the base case's.

    Seeds of a setting are averaged item by item, and so are the pairs of a factorial grid. Losses on
    different tokens are compared in bits per byte, on the rows of which all runs have the same text.
    Runs trained on different numbers of tokens are not compared unless the study asks for them; such
    a row has a `reason` instead of a test.
    """
    rows = []
    for value in axis_values(outcomes, where.study):
        head = {"axis": value.axis, "value": value.value, "base_case_value": value.base_case_value}
        head |= _head(value.pairs, where.study)
        for measure in measures:
            rows.append(head | _axis_row(value.pairs, head, measure, spreads, terms, where))
    return rows


def _head(pairs: list[Pair], study: Study) -> dict[str, Any]:
    return {
        "pairs": len(pairs),
        "seeds": min(len(side) for pair in pairs for side in pair if side[0].record),
        "token_ratio": _token_ratio(pairs),
        "equal_tokens": all(equal_tokens(pair) or intended(pair, study) for pair in pairs),
    }


def _axis_row(
    pairs: list[Pair],
    head: dict[str, Any],
    measure: Measure,
    spreads: Spreads,
    terms: Terms,
    where: Comparability,
) -> dict[str, Any]:
    places = [[side_of(before, -1.0), side_of(after, 1.0)] for before, after in pairs]
    untested = measure.head | {"level": level_of(places)}
    # A missing score says more than unequal terms.
    if measure.lacks(subject for place in places for side in place for subject in side.subjects) is None:
        # More training tokens alone could explain a better score.
        if not head["equal_tokens"]:
            return untested | {"reason": UNEQUAL_TOKENS}
        if measure.metric == "loss" and not all(_same_tokens(pair, where.heldout) for pair in pairs):
            return _row_by_byte(measure, places, spreads, terms, where) or untested | {"reason": OTHER_LOSS_TOKENS}
    return contrast_row(measure, places, spreads, terms)


def _row_by_byte(
    loss: Measure, places: list[Place], spreads: Spreads, terms: Terms, where: Comparability
) -> dict[str, Any] | None:
    """The row of a held-out loss in bits per byte; None without these scores (an older score)."""
    measure = where.by_byte
    subjects = [subject for place in places for side in place for subject in side.subjects]
    if measure is None or measure.lacks(subjects) is not None:
        return None
    row = contrast_row(measure, places, spreads, terms) | {"task": loss.name, "family": loss.family}
    return row | {"items_total": rows_in(measure.tables[0])}


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
