"""One trial of a search, trained by the code that trains the grid's runs, on a base that is loaded once for all trials."""

import gc
import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.data.training_data import TrainingData, load_training_data
from loragrid.errors import Failed, UserError
from loragrid.models.loading import torch_device
from loragrid.models.model_files import prepared_entry
from loragrid.records.failures import disk_full, out_of_memory
from loragrid.records.losses import LossTable
from loragrid.runtime.session import SessionClock, StopSignals
from loragrid.study.budget import plan_steps
from loragrid.study.search_point import at_point
from loragrid.study.sections import ModelEntry
from loragrid.study.study_file import Study
from loragrid.training.backends.factory import choose_backend
from loragrid.training.backends.interface import Backend, Base
from loragrid.training.backends.recipe import make_recipe
from loragrid.training.progress import Diverged, Progress


class Pruned(Exception):
    """Raised out of the trainer at the measurement after which a trial is not worth going on with."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How a trial ended. `outcome`: complete, pruned, diverged, out_of_memory, failed, or why it was left unfinished.

    `curve`: per measurement its number (1 to evaluations), step, tokens seen and held-out loss. `loss` is the last.
    """

    outcome: str
    reason: str | None
    loss: float | None
    curve: list[tuple[int, int, int, float]]
    steps: int
    planned_steps: int | None
    samples: int
    tokens: int
    seconds: float


@dataclass(kw_only=True)
class TrialProgress(Progress):
    """A progress measured at `evaluations` equal parts of its length, so that trials with other batches can be compared there."""

    evaluations: int

    def part(self, step: int) -> int:
        """How many of the `evaluations` parts are done after `step` updates."""
        return step * self.evaluations // self.planned_steps

    def report(self, *, final: bool = False) -> None:
        """As for a run, but nothing for a trial that is over in seconds: the search tells a line for each."""
        if not final and self.session_seconds() > 10.0:
            super().report()

    def _evaluates_at(self, step: int) -> bool:
        # Not at step 0: the untrained base has one loss, the same for every trial.
        return step > 0 and self.part(step) > self.part(step - 1)


class NoCheckpoints:
    """A store that keeps nothing: a trial is short, and one that was stopped is tried again from its start."""

    def save(self, **_: Any) -> None:
        """Save nothing."""


class TrialBench:
    """Data and base, loaded when the first trial needs them; adapters are put on for each trial and taken off after it."""

    def __init__(self, study: Study, data_folder: Path) -> None:
        self.study, self.tune, self.data_folder = study, study.tune, data_folder
        self.device = torch_device()
        self.backend: Backend = choose_backend(study.training.backend, device=self.device)
        self._data: TrainingData | None = None
        self._base: Base | None = None
        self._frozen = False

    def ready(self) -> None:
        """Load data and base before the first trial is claimed, so that what is wrong with them is no trial's fault."""
        cell, _ = at_point(self.study, {}).cells[0], self.data
        try:
            recipe = make_recipe(self.study, cell, device=self.device)
            self._base = self._base or self.backend.load(self._entry(cell.model), recipe=recipe)
        except (RuntimeError, MemoryError) as error:
            if (memory := out_of_memory(error)) is None:
                raise
            raise Failed(
                f"model {cell.model} does not fit: out of {memory['where']} memory; take a lower precision or a smaller model",
                reason="out_of_memory",
            ) from error

    def _entry(self, model: str) -> ModelEntry:
        return prepared_entry(self.study.models[model], self.data_folder)

    @property
    def data(self) -> TrainingData:
        """Training rows, and the held-out rows that trials are measured on."""
        if self._data is None:
            data = load_training_data(self.data_folder)
            chosen = spread_rows(len(data.heldout), self.tune.heldout_rows)
            self._data = TrainingData(train=data.train, heldout=data.heldout.select(chosen), card=data.card)
        return self._data

    def run(
        self,
        point: dict[str, Any],
        *,
        name: str,
        folder: Path,
        stop: StopSignals,
        clock: SessionClock,
        listen: Callable[[int, float], bool],
    ) -> TrialResult:
        """Train one trial. `listen` gets each measurement's number and loss, and says whether to prune.

        Memory that runs out, and any other error in training, are results of the trial; the base is then loaded anew, since
        nobody knows in which state that left it. A full disk and the user's mistakes are raised.
        """
        began, progress = time.monotonic(), None
        try:
            trainer, progress = self._prepare(point, name=name, folder=folder, stop=stop, clock=clock)
            progress.on_heldout_loss = _listener(progress, listen)
            outcome, reason = self._train(trainer, progress)
            self._base = self.backend.release(self._base, trainer.model)
        except Exception as error:
            if isinstance(error, UserError | Failed) or disk_full(error, folder):
                raise  # these would end every other trial too
            traceback.print_exc()
            memory = out_of_memory(error)
            outcome = "out_of_memory" if memory else "failed"
            reason = f"out of {memory['where']} memory" if memory else f"{type(error).__name__}: {error}"
            self.drop_base()
        trainer = None
        self._tidy()
        return _result(progress, outcome=outcome, reason=reason, seconds=time.monotonic() - began)

    def drop_base(self) -> None:
        """Let go of the base: the next trial loads it anew."""
        gc.unfreeze()
        self._base, self._frozen = None, False

    def _prepare(
        self, point: dict[str, Any], *, name: str, folder: Path, stop: StopSignals, clock: SessionClock
    ) -> tuple[Any, TrialProgress]:
        """A trainer that has not begun, on fresh adapters, and its progress."""
        study = at_point(self.study, point, budget=self.tune.budget)
        cell = study.cells[0]
        recipe = make_recipe(study, cell, device=self.device)
        if self._base is None:
            self._base = self.backend.load(self._entry(cell.model), recipe=recipe)
        model = self.backend.adapt(self._base, recipe=recipe)
        trainer = self.backend.trainer(
            model, base=self._base, recipe=recipe, train=self.data.train, heldout=self.data.heldout, folder=folder
        )
        steps = plan_steps(
            self.tune.budget,
            lengths_tokens=trainer.lengths_tokens(),
            per_device=recipe.per_device,
            accumulation=recipe.accumulation,
        )
        progress = TrialProgress(
            run=name,
            planned_steps=steps,
            evaluations=self.tune.evaluations,
            evaluate_every_steps=steps,
            save_steps=steps + 1,
            save_minutes=math.inf,
            losses=LossTable(folder / "losses.csv"),
            clock=clock,
            stop=stop,
        )
        progress.begin(None)
        trainer.attach_progress(progress, NoCheckpoints())
        return trainer, progress

    def _train(self, trainer: Any, progress: TrialProgress) -> tuple[str, str | None]:
        """Outcome and reason."""
        try:
            trainer.train()
        except Pruned:
            return "pruned", None
        except Diverged as divergence:
            return "diverged", str(divergence)
        measured = progress.losses.last("heldout")
        if measured is not None and measured.step == progress.planned_steps:
            return "complete", None
        return progress.stop_reason or "stopped", None

    def _tidy(self) -> None:
        """Give back what the trial's trainer held, which cycles of references keep alive."""
        import torch

        gc.collect()
        if not self._frozen:
            # The libraries' half a million objects stay, so they need not be looked through again: every trial collects
            # garbage twice (accelerate does it too), which took a tenth of the demo's trials.
            gc.freeze()
            self._frozen = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def spread_rows(count: int, wanted: int | None) -> list[int]:
    """`wanted` row numbers evenly spread over `count` rows; all of them for None or where there are no more."""
    if wanted is None or wanted >= count:
        return list(range(count))
    return [index * count // wanted for index in range(wanted)]


def _listener(progress: TrialProgress, listen: Callable[[int, float], bool]) -> Callable[[int, float], None]:
    def told(step: int, loss: float) -> None:
        # Raised and not asked for: a trainer that is asked to stop makes one more update first.
        if listen(progress.part(step), loss) and step < progress.planned_steps:
            raise Pruned

    return told


def _result(progress: TrialProgress | None, *, outcome: str, reason: str | None, seconds: float) -> TrialResult:
    if progress is None:
        return TrialResult(
            outcome=outcome,
            reason=reason,
            loss=None,
            curve=[],
            steps=0,
            planned_steps=None,
            samples=0,
            tokens=0,
            seconds=seconds,
        )
    rows = [row for row in progress.losses.rows if row.kind == "heldout" and math.isfinite(row.loss)]
    return TrialResult(
        outcome=outcome,
        reason=reason,
        loss=rows[-1].loss if rows else None,
        curve=[(progress.part(row.step), row.step, row.tokens, row.loss) for row in rows],
        steps=progress.totals.step,
        planned_steps=progress.planned_steps,
        samples=progress.totals.samples,
        tokens=progress.totals.tokens,
        seconds=seconds,
    )
