"""Hyperband's brackets, chosen by a trial's slot so that a killed search continues unchanged."""

from functools import cache
from typing import Any

from loragrid.study.sections import Tune


def bracket_order(shares: list[int]) -> list[int]:
    """One period of brackets in which bracket i appears `shares[i]` times, spread evenly.

    The method is smooth weighted round robin.
    """
    credit = [0] * len(shares)
    order = []
    for _ in range(sum(shares)):
        # Every bracket earns its share; the richest one comes next (on a tie the first) and pays
        # for all.
        credit = [have + share for have, share in zip(credit, shares)]
        chosen = credit.index(max(credit))
        credit[chosen] -= sum(shares)
        order.append(chosen)
    return order


@cache
def pruner_class() -> type:
    """The class `BracketPruner`, defined in a function because importing its parent is slow."""
    from optuna.pruners import HyperbandPruner
    from optuna.trial import TrialState

    class BracketPruner(HyperbandPruner):
        """Optuna's Hyperband with three differences.

        Hyperband: Li et al., 2018, https://jmlr.org/papers/v18/16-558.html. A trial's bracket
        follows from its slot and not from a hash of Optuna's trial number, which a retry changes.
        The brackets exist from the start, because slots get theirs before any trial is pruned. A
        trial left by a killed worker does not compete, because its retry does.
        """

        def __init__(self, *, min_resource: int, max_resource: int, reduction_factor: int) -> None:
            super().__init__(min_resource=min_resource, max_resource=max_resource, reduction_factor=reduction_factor)
            self._try_initialization(None)
            self.order = bracket_order(self._trial_allocation_budgets)

        def bracket(self, slot: int) -> int:
            """The bracket of a slot."""
            return self.order[slot % len(self.order)]

        def _get_bracket_id(self, study: Any, trial: Any) -> int:
            if trial.state == TrialState.FAIL:
                return -1
            return self.bracket(trial.user_attrs["slot"])

    return BracketPruner


def make_pruner(tune: Tune) -> Any:
    """The pruner of a study's search; one that never prunes if `tune.pruner` is null."""
    from optuna.pruners import NopPruner

    if tune.pruner is None:
        return NopPruner()
    return pruner_class()(
        min_resource=tune.pruner.min_evaluations,
        max_resource=tune.evaluations,
        reduction_factor=tune.pruner.reduction_factor,
    )
