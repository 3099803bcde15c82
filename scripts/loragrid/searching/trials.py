"""Training of a search's trials, by the grid's code and on a base that is loaded once."""

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
from loragrid.records.failures import disk_full, model_must_fit, out_of_memory
from loragrid.records.losses import LossTable
from loragrid.runtime.atomic_files import sha256_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.provenance import versions
from loragrid.runtime.session import SessionClock, StopSignals
from loragrid.searching.trial_progress import NoCheckpoints, Pruned, TrialProgress
from loragrid.study.budget import plan_steps
from loragrid.study.grid import Cell
from loragrid.study.search_point import at_point, settings_sha256
from loragrid.study.study_file import Study
from loragrid.training.backends.factory import choose_backend
from loragrid.training.backends.interface import Backend, Base
from loragrid.training.backends.recipe import Recipe, make_recipe
from loragrid.training.progress import Diverged

# Libraries whose version can change a trial's loss, or which setting is tried next.
RESULT_LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "bitsandbytes",
    "unsloth",
    "unsloth_zoo",
    "optuna",
)


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How a trial ended.

    `outcome`: complete, pruned, diverged, out_of_memory, failed, or why it was left unfinished.
    `curve` has for each measurement its number (1 to evaluations), step, tokens seen and held-out
    loss; `loss` is the last finite one.
    """

    outcome: str
    reason: str | None
    loss: float | None = None
    curve: tuple[tuple[int, int, int, float], ...] = ()
    steps: int = 0
    planned_steps: int | None = None
    samples: int = 0
    tokens: int = 0
    seconds: float


def search_name(study: Study) -> str:
    """The name of a study's search: its space, and a digest of all that its trials depend on.

    That is its settings, the code of a trial and the versions of the libraries. Trials made under
    another name are never mixed with those of this one.
    """
    installed = versions()
    libraries = {package: installed.get(package) for package in RESULT_LIBRARIES}
    digest = sha256_json([settings_sha256(study), code_digest("loragrid/searching/trials"), libraries])
    return f"{study.tune.space}-{digest[:8]}"


class TrialRunner:
    """Trains one trial after another on the same base, each with a fresh adapter."""

    def __init__(self, study: Study, data_folder: Path) -> None:
        self.study, self.tune, self.data_folder = study, study.tune, data_folder
        self.device = torch_device()
        self.backend: Backend = choose_backend(study.base_case.backend, device=self.device)
        self._data: TrainingData | None = None
        self._base: Base | None = None
        self._frozen = False

    def load(self) -> None:
        """Load data and base; raises `Failed` if memory runs out and `UserError` for broken files.

        Called before the first trial is claimed, so that no trial is blamed for them.
        """
        cell, _ = at_point(self.study, {}).cells[0], self.data
        with model_must_fit(cell.model):
            self._load_base(cell, make_recipe(self.study, cell, device=self.device))

    def _load_base(self, cell: Cell, recipe: Recipe) -> Base:
        if self._base is None:
            entry = prepared_entry(self.study.base_entry(cell), self.data_folder)
            self._base = self.backend.load(entry, recipe=recipe)
        return self._base

    @property
    def data(self) -> TrainingData:
        """Training rows, and the held-out rows that trials are measured on."""
        if self._data is None:
            data = load_training_data(self.data_folder)
            # Evenly spaced and not random, so that all trials and workers measure on the same rows.
            chosen = evenly_spaced(len(data.heldout), self.tune.heldout_rows)
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
        should_prune: Callable[[int, float], bool],
    ) -> TrialResult:
        """Train one trial. `should_prune` is called with the number and loss of each measurement.

        Running out of memory and any other error in training are results of the trial. A full disk
        and mistakes of the user are raised, because they would end every other trial too.
        """
        began, progress = time.monotonic(), None
        try:
            trainer, progress = self._prepare(point, name=name, folder=folder, stop=stop, clock=clock)
            progress.prune_if(should_prune)
            outcome, reason = self._train(trainer, progress)
            self._base = self.backend.release(self._base, trainer.model)
        except Exception as error:
            if isinstance(error, UserError | Failed) or disk_full(error, folder):
                raise
            traceback.print_exc()  # In the job's log: the table has room for one line only.
            outcome, reason = _failed(error)
            # The error may have left an adapter or a half-finished update on the base.
            self._drop_base()
        # The trainer holds the last reference to the adapter and the optimizer's state.
        trainer = None
        self._free_memory()
        return _result(progress, outcome=outcome, reason=reason, seconds=time.monotonic() - began)

    def _drop_base(self) -> None:
        """Drop the base, so that the next trial loads it again."""
        gc.unfreeze()
        self._base, self._frozen = None, False

    def _prepare(
        self, point: dict[str, Any], *, name: str, folder: Path, stop: StopSignals, clock: SessionClock
    ) -> tuple[Any, TrialProgress]:
        """A trainer with a fresh adapter, ready to start, and its progress."""
        study = at_point(self.study, point, budget=self.tune.budget)
        cell = study.cells[0]
        recipe = make_recipe(study, cell, device=self.device)
        base = self._load_base(cell, recipe)  # Again only after a trial that failed.
        model = self.backend.adapt(base, recipe=recipe)
        trainer = self.backend.trainer(model, base=base, recipe=recipe, data=self.data, folder=folder)
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
            # Beyond the last step and after an infinite time: a trial saves no checkpoint.
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
        # A trainer that was stopped returns normally, so the last measurement decides.
        measured = progress.losses.last("heldout")
        if measured is not None and measured.step == progress.planned_steps:
            return "complete", None
        return progress.stop_reason or "stopped", None

    def _free_memory(self) -> None:
        """Free the trial's trainer, which cycles of references keep alive until a collection."""
        import torch

        gc.collect()
        if not self._frozen:
            # The libraries' half a million objects stay for good, so later collections need not
            # look at them. Every trial collects twice (accelerate does it too), which took a tenth
            # of the time of the demo's trials.
            gc.freeze()
            self._frozen = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def evenly_spaced(count: int, wanted: int | None) -> list[int]:
    """`wanted` row numbers evenly spaced over `count` rows; all if there are no more."""
    if wanted is None or wanted >= count:
        return list(range(count))
    return [index * count // wanted for index in range(wanted)]


def _failed(error: Exception) -> tuple[str, str]:
    """Outcome and reason of a trial that ended with an error."""
    memory = out_of_memory(error)
    if memory is not None:
        return "out_of_memory", f"out of {memory['where']} memory"
    return "failed", f"{type(error).__name__}: {error}"


def _result(progress: TrialProgress | None, *, outcome: str, reason: str | None, seconds: float) -> TrialResult:
    """The result of a trial; its `progress` is None if the trial failed before its first step."""
    if progress is None:
        return TrialResult(outcome=outcome, reason=reason, seconds=seconds)
    rows = [row for row in progress.losses.rows if row.kind == "heldout" and math.isfinite(row.loss)]
    return TrialResult(
        outcome=outcome,
        reason=reason,
        loss=rows[-1].loss if rows else None,
        curve=tuple((progress.part(row.step), row.step, row.tokens, row.loss) for row in rows),
        steps=progress.totals.step,
        planned_steps=progress.planned_steps,
        samples=progress.totals.samples,
        tokens=progress.totals.tokens,
        seconds=seconds,
    )
