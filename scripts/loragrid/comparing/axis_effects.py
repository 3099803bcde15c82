"""Which setting matters: every value of every axis against the base case's value, all else equal."""

from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.comparisons import Terms, paired_rows
from loragrid.comparing.item_tables import ItemTable
from loragrid.records.outcomes import Outcome
from loragrid.study.sections import BaseCase

COMPARED_AXES = ("learning_rate", "rank", "batch", "model")
# ASSUME: cells whose training tokens differ by less than 2%, or by less than one update, were trained on equal terms.
TOKEN_TOLERANCE = 0.02
Pair = tuple[list[Outcome], list[Outcome]]  # runs with the base case's value and with another, each under all seeds


def versus_base_case(
    outcomes: list[Outcome],
    tables: dict[str, ItemTable],
    base_case: BaseCase,
    terms: Terms,
    *,
    heldout: dict[str, str],
) -> pd.DataFrame:
    """One row per axis value and task: runs with that value minus runs with the base case's value, all else equal.

    Seeds of a setting are averaged item by item, and so are the pairs of a factorial grid. `heldout`: data id → fingerprint of
    the held-out tokens; losses on different tokens are not compared, nor are runs that trained on different numbers of
    tokens, and the row says so. A search's winner, which leaves the base case on several settings at once, is an axis of
    its own.
    """
    rows = []
    for axis, value, default, pairs in _all_pairs(outcomes, base_case):
        head = {"axis": axis, "value": value, "base_case_value": default}
        rows += [head | _axis_row(pairs, table, terms, heldout) for table in tables.values()]
    return pd.DataFrame(rows)


def _all_pairs(outcomes: list[Outcome], base_case: BaseCase) -> list[tuple[str, str, str, list[Pair]]]:
    """(axis, value, base case's value, pairs) for every value that some runs share all else with the base case's value in."""
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
        for value, places in sorted(by_value.items(), key=lambda item: _order(item[0])):
            pairs = [(partners[place], members) for place, members in places.items() if place in partners]
            if pairs:
                found.append((axis, axis_text(axis, value), axis_text(axis, default), pairs))
    winner = [o for o in runs if "search" in o.cell.departs]
    case = [o for o in grid if not set(o.cell.departs) - {"seed"}]
    if winner and case:
        found.append(("search", "winner", "base case", [(case, winner)]))
    return found


def _place(outcome: Outcome, without: str) -> tuple:
    """The cell's settings apart from one axis and the seed; alpha moves with rank where the study says so."""
    return tuple(str(getattr(outcome.cell, axis)) for axis in COMPARED_AXES if axis != without)


def _order(value: Any) -> tuple:
    return (0, value, "") if isinstance(value, int | float) else (1, 0, str(value))


def axis_text(axis: str, value: Any) -> str:
    """An axis value as text: 0.01, 16, 2×4, llama-s."""
    if axis == "batch":
        return f"{value[0]}×{value[1]}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _axis_row(pairs: list[Pair], table: ItemTable, terms: Terms, heldout: dict[str, str]) -> dict[str, Any]:
    everyone = [o for pair in pairs for side in pair for o in side]
    before, after = (np.mean([o.record.tokens for pair in pairs for o in pair[side]]) for side in (0, 1))
    head = {
        "task": table.task,
        "group": table.group,
        "metric": table.metric,
        "pairs": len(pairs),
        "seeds": min(len(side) for pair in pairs for side in pair),
        "seed_share": sum(1 / len(side) for pair in pairs for side in pair) / len(pairs) ** 2,
        "token_ratio": float(after / before),
        "equal_tokens": all(_equal_tokens(pair) for pair in pairs),
    }
    missing = [o.subject for o in everyone if o.subject not in table.values]
    if missing:
        return head | {"reason": f"{missing[0]} has no score on {table.task}"}
    if not head["equal_tokens"]:
        return head | {
            "reason": f"not comparable: its runs trained on {head['token_ratio']:.3g} times the base case’s tokens"
        }
    if table.metric == "loss" and not all(_same_tokens(pair, heldout) for pair in pairs):
        return head | {"reason": "not comparable: losses on different tokens (another tokenizer or chat template)"}
    mask, before, after, weights = _mean_of_pairs(pairs, table)
    return head | paired_rows(table, mask, before, after[None], weights=weights, terms=terms)[0]


def _equal_tokens(pair: Pair) -> bool:
    """Whether both sides trained on the same number of tokens, as far as whole updates allow."""
    means = [np.mean([o.record.tokens for o in side]) for side in pair]
    update = max(o.record.tokens / o.record.steps for side in pair for o in side if o.record.steps)
    return abs(means[1] - means[0]) <= max(TOKEN_TOLERANCE * means[0], update)


def _same_tokens(pair: Pair, heldout: dict[str, str]) -> bool:
    """Whether the held-out loss of both sides is over the same tokens."""
    return len({heldout.get(o.cell.data, o.cell.data) for side in pair for o in side}) == 1


def _mean_of_pairs(pairs: list[Pair], table: ItemTable) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Which items all runs have, values before and after and weights of those, such that the weighted mean difference is the
    mean over the pairs of each pair's own: pairs on other models may weigh the same items otherwise."""
    sides = [[np.mean([table.values[o.subject] for o in side], axis=0) for side in pair] for pair in pairs]
    mask = ~np.isnan(np.sum(sides, axis=(0, 1)))
    before, after = (np.array([pair[side][mask] for pair in sides]) for side in (0, 1))
    if table.weights is None:
        return mask, before.mean(axis=0), after.mean(axis=0), None
    weights = np.array([table.weights[pair[0][0].subject][mask] for pair in pairs])
    share = weights / weights.sum(axis=1, keepdims=True)
    whole = share.sum(axis=0)
    return mask, (share * before).sum(axis=0) / whole, (share * after).sum(axis=0) / whole, whole
