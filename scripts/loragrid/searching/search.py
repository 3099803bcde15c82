"""A search: its finished, running and open trials, and how one of several workers claims the next.

Trials are numbered by `slot`, 0 to trials - 1. A slot may have several of Optuna's trials: one left
by a killed worker is marked as failed, and its slot is tried again with the same parameters. The
parameters of a slot depend on the seed, the slot and the earlier results only, so a single worker
makes the same search however often it is killed.
"""

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import Paused, print_line
from loragrid.runtime.run_lock import RunLock
from loragrid.searching.hyperband_brackets import make_pruner
from loragrid.searching.journal import open_journal, process_lock
from loragrid.searching.samplers import draw, is_drawn, make_sampler
from loragrid.searching.trial_states import MAX_KILLS, is_settled, kills
from loragrid.study.search.search_space import decoded, searched_space
from loragrid.study.sections import Tune

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial


@dataclass(frozen=True)
class Claim:
    """A trial held by this worker.

    `point` is the setting to train; `lock` shows other workers that this one is alive.
    """

    slot: int
    point: dict[str, Any]
    trial: "Trial"
    folder: Path
    lock: RunLock


class Search:
    """The trials of one search.

    Its journal, `folder/journal.log`, may hold other searches under their own names. `method` is
    that of trials if the space has none; `higher_is_better` the direction of the objective.
    """

    def __init__(
        self, folder: Path, *, name: str, tune: Tune, method: str = "lora", higher_is_better: bool = False
    ) -> None:
        import optuna

        # Otherwise Optuna prints a line for each trial, as the tune stage does.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name, self.tune, self.folder = name, tune, folder / "trials" / name
        self.method, self.higher_is_better = method, higher_is_better
        self.space = searched_space(tune)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claims = process_lock(folder / "claims.flock")
        self.pruner = make_pruner(tune)
        # Two workers that start at the same time must not both create the study.
        with self._claims:
            self._storage = open_journal(folder / "journal.log")
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                direction="maximize" if higher_is_better else "minimize",
                pruner=self.pruner,
                load_if_exists=True,
            )

    def note_rows(self, rows: Mapping[str, int]) -> None:
        """Keep how many rows and items the trials train on and are chosen by, for `rows`."""
        # Each worker calls this; one line in the journal is enough.
        if self._study.user_attrs.get("rows") != rows:
            self._study.set_user_attr("rows", dict(rows))

    def rows(self) -> dict[str, int]:
        """The numbers that `note_rows` kept: "training", "validation" and, with a task, "items"."""
        return self._study.user_attrs["rows"]

    def trials(self) -> list["FrozenTrial"]:
        """All of Optuna's trials, including those left by killed workers."""
        return self._study.get_trials(deepcopy=False)

    def by_slot(self) -> list[list["FrozenTrial"]]:
        """Optuna's trials of each slot, oldest first.

        Slots beyond `tune.trials` are included if that number was larger before.
        """
        found: dict[int, list[FrozenTrial]] = {slot: [] for slot in range(self.tune.trials)}
        for trial in self.trials():
            found.setdefault(trial.user_attrs["slot"], []).append(trial)
        return [found[slot] for slot in sorted(found)]

    def settled(self) -> int:
        """The number of slots that need no further trial."""
        return sum(is_settled(trials) for trials in self.by_slot()[: self.tune.trials])

    @contextmanager
    def claim_next(self) -> Iterator[Claim | None]:
        """Claim the next open trial for the block; None if other workers hold all of them."""
        with ExitStack() as held:
            # One claim at a time over all workers: choosing a slot and locking it must not be
            # interleaved.
            with self._claims:
                slots, claim = self._open_slots(), None
                if slots:
                    claim = self._claim(slots[0])
                    held.enter_context(claim.lock)
            yield claim

    def _open_slots(self) -> list[int]:
        """The slots to be tried, lowest first.

        Trials whose worker is gone are marked as failed here, and only here. A slot whose trial was
        enqueued by a worker that died before asking for it comes before all others, because Optuna
        gives an enqueued trial to whoever asks next.
        """
        from optuna.trial import TrialState

        enqueued, others = [], []
        for slot, trials in enumerate(self.by_slot()):
            waits = any(trial.state == TrialState.WAITING for trial in trials)
            if is_settled(trials) or (slot >= self.tune.trials and not waits):
                continue
            if trials:
                # Still training, or about to release what it has just finished.
                if self._alive(slot):
                    continue
                # The worker may have finished the trial between the first look and releasing its
                # lock.
                trials = self.by_slot()[slot]
                if is_settled(trials):
                    continue
            running = [trial for trial in trials if trial.state == TrialState.RUNNING]
            for trial in running:
                self._study.tell(trial.number, state=TrialState.FAIL)
                print_line(f"[tune] trial {slot} was left by its worker")
            if kills(trials) + len(running) < MAX_KILLS:
                group = enqueued if waits else others
                group.append(slot)
        return enqueued + others

    def _alive(self, slot: int) -> bool:
        """Whether a worker holds the slot's lock."""
        # Optuna's heartbeats need a relational database; a journal has none.
        folder = self.trial_folder(slot)
        try:
            with RunLock(folder, run=f"trial {slot}"):
                return False
        except Paused:
            return True

    def _claim(self, slot: int) -> Claim:
        """Ask Optuna for the slot's trial.

        A retry gets the parameters of the earlier trial if that had received all of them.
        """
        from optuna.trial import TrialState

        earlier = self.by_slot()[slot]
        if not any(trial.state == TrialState.WAITING for trial in earlier):
            # Enqueued and then asked for: a worker killed in between leaves a trial that has its
            # slot.
            drawn = [trial for trial in earlier if is_drawn(trial.params, self.space, self.method)]
            point = drawn[-1].params if drawn else {}
            attributes: dict[str, Any] = {"slot": slot}
            if hasattr(self.pruner, "bracket"):
                attributes["bracket"] = self.pruner.bracket(slot)
            if earlier:
                attributes["retry_of"] = earlier[-1].number
            self._study.enqueue_trial(point, user_attrs=attributes)
        self._study.sampler = make_sampler(self.tune, slot=slot)
        trial = self._study.ask()
        if trial.user_attrs["slot"] != slot:
            other = trial.user_attrs["slot"]
            raise RuntimeError(f"Optuna returned trial {other} instead of {slot}: another program changed the journal")
        draw(trial, self.space, self.method)
        trial.set_user_attr("modelled", bool(trial.relative_params))
        trial.set_user_attr("worker", f"{platform.node()}:{os.getpid()}")
        folder = self.trial_folder(slot)
        point = decoded(trial.params, self.space)
        return Claim(slot, point, trial, folder, RunLock(folder, run=f"trial {slot}"))

    def trial_folder(self, slot: int) -> Path:
        """The folder of a slot's losses.csv and lock."""
        folder = self.folder / f"{slot:04d}"
        folder.mkdir(exist_ok=True)
        return folder

    def report(self, claim: Claim, part: int, loss: float) -> None:
        """Report a validation loss to Optuna, which prunes by it and ranks pruned trials by it.

        It is reported with a minus sign if the objective is to be as high as possible: Optuna takes
        measurements and results to have the same direction.
        """
        claim.trial.report(-loss if self.higher_is_better else loss, part)

    def finish(self, claim: Claim, *, outcome: str, value: float | None = None, **facts: Any) -> bool:
        """Record how a claimed trial ended; False if another worker has taken it over.

        That happens when this machine sleeps. `outcome`: complete, pruned, diverged, out_of_memory,
        failed, or any other reason why it was left, to be tried again. `value`: that of the
        objective, if complete.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        # A diverged trial counts as pruned for Optuna, because the sampler learns from pruned
        # trials but not from failed ones.
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "diverged": TrialState.PRUNED}
        state = states.get(outcome, TrialState.FAIL)
        try:
            for key, fact in (facts | {"value": value, "outcome": outcome}).items():
                claim.trial.set_user_attr(key, fact)
            # Optuna accepts a value for a complete trial only.
            self._study.tell(claim.trial, value if state == TrialState.COMPLETE else None, state=state)
        except UpdateFinishedTrialError:
            print_line(f"[tune] trial {claim.slot} was taken over by another worker: the result of that one counts")
            return False
        return True
