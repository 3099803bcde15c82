"""When a slot of a search needs no further trial."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# Outcomes of a failed trial that are final. A failed trial with another outcome was left by its
# worker and is tried again.
FINAL_FAILURES = ("out_of_memory", "failed")
# A slot is given up after so many killed workers: its trial may be what makes the system kill them,
# by using up memory.
MAX_KILLS = 5


def is_settled(trials: list["FrozenTrial"]) -> bool:
    """Whether a slot needs no further trial.

    One is complete, pruned or finally failed, or too many workers were killed.
    """
    from optuna.trial import TrialState

    done = (TrialState.COMPLETE, TrialState.PRUNED)
    if any(trial.state in done or _finally_failed(trial) for trial in trials):
        return True
    return kills(trials) >= MAX_KILLS


def kills(trials: list["FrozenTrial"]) -> int:
    """The number of a slot's trials whose worker was killed: they failed without an outcome."""
    from optuna.trial import TrialState

    return sum(trial.state == TrialState.FAIL and "outcome" not in trial.user_attrs for trial in trials)


def _finally_failed(trial: "FrozenTrial") -> bool:
    from optuna.trial import TrialState

    return trial.state == TrialState.FAIL and trial.user_attrs.get("outcome") in FINAL_FAILURES
