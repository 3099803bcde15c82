"""Hyperband's brackets, filled in turn by the trials' own numbers, the same after a kill as without one."""

from functools import cache
from typing import Any

from loragrid.study.sections import Tune


def turns(shares: list[int]) -> list[int]:
    """One period in which bracket i comes `shares[i]` times, spread as evenly as whole turns allow (smooth round robin)."""
    credit = [0] * len(shares)
    order = []
    for _ in range(sum(shares)):
        credit = [have + share for have, share in zip(credit, shares)]
        chosen = max(range(len(shares)), key=lambda i: (credit[i], -i))
        credit[chosen] -= sum(shares)
        order.append(chosen)
    return order


@cache
def pruner_class() -> type:
    """The class is made here because its parent takes a moment to import."""
    from optuna.pruners import HyperbandPruner
    from optuna.trial import TrialState

    class BracketPruner(HyperbandPruner):
        """Optuna's Hyperband (https://jmlr.org/papers/v18/16-558.html), with three differences.

        A trial's bracket follows from its `slot`, not from a hash of Optuna's own number, which a retry changes. The brackets
        exist from the start, as slots are given theirs before any is pruned. And a trial that a killed worker left does not
        compete, since its retry does.
        """

        def __init__(self, *, min_resource: int, max_resource: int, reduction_factor: int) -> None:
            super().__init__(min_resource=min_resource, max_resource=max_resource, reduction_factor=reduction_factor)
            self._try_initialization(None)
            self.order = turns(self._trial_allocation_budgets)
            self.rungs = [
                [r for k in range(20) if (r := min_resource * reduction_factor ** (bracket + k)) < max_resource]
                for bracket in range(len(self._pruners))
            ]

        def bracket(self, slot: int) -> int:
            """The bracket of a slot."""
            return self.order[slot % len(self.order)]

        def _get_bracket_id(self, study: Any, trial: Any) -> int:
            if trial.state == TrialState.FAIL or "slot" not in trial.user_attrs:
                return -1
            return self.bracket(trial.user_attrs["slot"])

    return BracketPruner


def make_pruner(tune: Tune) -> Any:
    """The pruner of a study file's `tune`; one that never prunes where it is null."""
    from optuna.pruners import NopPruner

    if tune.pruner is None:
        return NopPruner()
    return pruner_class()(
        min_resource=tune.pruner.min_evaluations,
        max_resource=tune.evaluations,
        reduction_factor=tune.pruner.reduction_factor,
    )
