"""A search: which trials are done, running or open, and how one worker among several takes the next.

Trials are counted by `slot`, 0 to trials - 1. A slot may have several of Optuna's trials: one that a killed worker left
is marked failed and its slot tried again with the same parameters. What a slot gets depends on the seed, the slot and the
results before it, so one worker makes the same search however often it is killed.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import Paused, print_line
from loragrid.runtime.kernel_lock import KernelLock
from loragrid.runtime.run_lock import RunLock
from loragrid.searching.hyperband_brackets import make_pruner
from loragrid.searching.journal import open_journal
from loragrid.study.search_space import distributions, readable, searched_space
from loragrid.study.sections import Tune

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

# Outcomes of a failed trial that stand; a failed one without such an outcome was left by its worker, and is tried again.
FINAL_FAILURES = ("out_of_memory", "failed")
# A trial whose worker is killed so often (by the system for want of memory, say) is given up.
MOST_KILLS = 5


@dataclass(frozen=True)
class Claim:
    """A trial that this worker holds: its slot and parameters, Optuna's trial, its folder, and the lock that shows life."""

    slot: int
    point: dict[str, Any]
    trial: "Trial"
    folder: Path
    lock: RunLock


class Search:
    """The trials of one search in `folder/journal.log`, where other searches may lie too, each under its name."""

    def __init__(self, folder: Path, *, name: str, tune: Tune) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name, self.tune, self.folder = name, tune, folder / "trials" / name
        self.space = searched_space(tune)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claims = KernelLock(folder / "claims.flock")
        self.pruner = make_pruner(tune)
        with self._claims:
            self._storage = open_journal(folder / "journal.log")
            self._study = optuna.create_study(
                storage=self._storage, study_name=name, direction="minimize", pruner=self.pruner, load_if_exists=True
            )

    def trials(self) -> list["FrozenTrial"]:
        """All of Optuna's trials, those left by killed workers included."""
        return self._study.get_trials(deepcopy=False)

    def by_slot(self) -> list[list["FrozenTrial"]]:
        """Optuna's trials of each slot, oldest first. Slots beyond `tune.trials`, made under a larger number, come too."""
        found: dict[int, list[FrozenTrial]] = {slot: [] for slot in range(self.tune.trials)}
        for trial in self.trials():
            found.setdefault(trial.user_attrs["slot"], []).append(trial)
        return [found[slot] for slot in sorted(found)]

    def settled(self) -> int:
        """How many slots need no further trial."""
        return sum(is_settled(trials) for trials in self.by_slot()[: self.tune.trials])

    @contextmanager
    def next(self) -> Iterator[Claim | None]:
        """Claim the next open trial for the time of the block; None where there is none that nobody else holds.

        All claims of all workers go one after another through one lock, which their holder's death releases.
        """
        with ExitStack() as held:
            with self._claims:
                slots = self._open_slots()
                claim = self._claim(slots[0]) if slots else None
                if claim:
                    held.enter_context(claim.lock)
            yield claim

    def _open_slots(self) -> list[int]:
        """Slots to be tried, lowest first; before all others one whose trial was enqueued by a worker that died before it
        could ask for it, since Optuna gives that trial to whoever asks next.

        Trials whose worker is gone are marked failed here, and only here.
        """
        from optuna.trial import TrialState

        enqueued, others = [], []
        for slot, trials in enumerate(self.by_slot()):
            waits = any(trial.state == TrialState.WAITING for trial in trials)
            if is_settled(trials) or (slot >= self.tune.trials and not waits):
                continue
            if trials:
                if self._alive(slot):  # at work, or about to let go of what it has just left
                    continue
                trials = self.by_slot()[slot]  # its worker may have ended it after the first look, before letting go
                if is_settled(trials):
                    continue
            running = [trial for trial in trials if trial.state == TrialState.RUNNING]
            for trial in running:
                self._study.tell(trial.number, state=TrialState.FAIL)
                print_line(f"[tune] trial {slot} was left by its worker")
            if kills(trials) + len(running) < MOST_KILLS:
                (enqueued if waits else others).append(slot)
        return enqueued + others

    def _alive(self, slot: int) -> bool:
        """Whether a worker holds the slot's lock."""
        folder = self.trial_folder(slot)
        try:
            with RunLock(folder, run=f"trial {slot}"):
                return False
        except Paused:
            return True

    def _claim(self, slot: int) -> Claim:
        """Ask Optuna for the slot's trial, with the parameters of the slot's earlier trial if it had got all of them."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        earlier = self.by_slot()[slot]
        if not any(trial.state == TrialState.WAITING for trial in earlier):
            drawn = [trial for trial in earlier if trial.params.keys() == self.space.keys()]
            point = drawn[-1].params if drawn else {}
            attributes: dict[str, Any] = {"slot": slot}
            if hasattr(self.pruner, "bracket"):
                attributes["bracket"] = self.pruner.bracket(slot)
            if earlier:
                attributes["retry_of"] = earlier[-1].number
            self._study.enqueue_trial(point, user_attrs=attributes)
        # A sampler of its own for each trial: its random state is then the slot's and not the process's.
        self._study.sampler = TPESampler(seed=self._seed(slot), n_startup_trials=self.tune.startup_trials)
        trial = self._study.ask(fixed_distributions=distributions(self.space))
        if trial.user_attrs["slot"] != slot:
            raise RuntimeError(
                f"trial {slot} was asked for and {trial.user_attrs['slot']} came: the journal was changed"
            )
        trial.set_user_attr("modelled", bool(trial.relative_params))
        trial.set_user_attr("worker", f"{platform.node()}:{os.getpid()}")
        folder = self.trial_folder(slot)
        return Claim(slot, readable(trial.params, self.space), trial, folder, RunLock(folder, run=f"trial {slot}"))

    def _seed(self, slot: int) -> int:
        """The seed of a slot's sampler, 32 bits."""
        return int.from_bytes(sha256(f"{self.tune.seed} {slot}".encode()).digest()[:4], "big")

    def trial_folder(self, slot: int) -> Path:
        """The folder of a slot's losses.csv and lock."""
        folder = self.folder / f"{slot:04d}"
        folder.mkdir(exist_ok=True)
        return folder

    def finish(self, claim: Claim, *, outcome: str, loss: float | None = None, **facts: Any) -> bool:
        """Record how a claimed trial ended. False if this machine slept and another worker took the trial over.

        `outcome`: complete, pruned, diverged, out_of_memory, failed, or a reason to have left it, to be tried again.
        A diverged trial is one of Optuna's pruned ones, so that the sampler learns from it; it learns nothing from failed ones.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "diverged": TrialState.PRUNED}
        state = states.get(outcome, TrialState.FAIL)
        try:
            for key, value in (facts | {"loss": loss, "outcome": outcome}).items():
                claim.trial.set_user_attr(key, value)
            self._study.tell(claim.trial, loss if state == TrialState.COMPLETE else None, state=state)
        except UpdateFinishedTrialError:
            print_line(
                f"[tune] trial {claim.slot} was taken over while this worker gave no sign of life: the other's result counts"
            )
            return False
        return True


def is_settled(trials: list["FrozenTrial"]) -> bool:
    """Whether a slot needs no further trial: one is complete, pruned or failed for good, or too many workers died of it."""
    from optuna.trial import TrialState

    done = (TrialState.COMPLETE, TrialState.PRUNED)
    return any(trial.state in done or _failed_for_good(trial) for trial in trials) or kills(trials) >= MOST_KILLS


def kills(trials: list["FrozenTrial"]) -> int:
    """How many of a slot's trials were left without a word."""
    from optuna.trial import TrialState

    return sum(trial.state == TrialState.FAIL and "outcome" not in trial.user_attrs for trial in trials)


def _failed_for_good(trial: "FrozenTrial") -> bool:
    from optuna.trial import TrialState

    return trial.state == TrialState.FAIL and trial.user_attrs.get("outcome") in FINAL_FAILURES
