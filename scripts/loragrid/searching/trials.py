"""Training of a search's trials, by the grid's code and on a base that is loaded once."""

import gc
import math
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from loragrid.data.training_data import TrainingData
from loragrid.errors import Failed, UserError
from loragrid.models.loading import torch_device
from loragrid.models.model_files import prepared_entry
from loragrid.records.failures import disk_full, model_must_fit
from loragrid.records.losses import LossTable
from loragrid.runtime.atomic_files import sha256_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.progress_lines import RepeatedLines
from loragrid.runtime.provenance import versions
from loragrid.runtime.session import SessionClock, StopSignals
from loragrid.searching.trial_progress import NoCheckpoints, Pruned, TrialProgress
from loragrid.searching.trial_results import TrialResult, failed, trial_result
from loragrid.searching.validation_rows import search_rows
from loragrid.study.budget import plan_steps
from loragrid.study.grid import Cell
from loragrid.study.methods import METHODS
from loragrid.study.search.search_point import at_point, settings_sha256
from loragrid.study.study_file import Study
from loragrid.training.backends.factory import choose_backend
from loragrid.training.backends.interface import Backend, Base
from loragrid.training.backends.recipe import Recipe, make_recipe
from loragrid.training.progress import REPORT_SECONDS, Diverged

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


def search_name(study: Study) -> str:
    """The name of a study's search: its space, and a digest of all that its trials depend on.

    That is its settings, the code of a trial and the versions of the libraries. Trials made under
    another name are never mixed with those of this one.
    """
    installed = versions()
    libraries = {package: installed.get(package) for package in RESULT_LIBRARIES}
    code = [code_digest("loragrid/searching/trials")]
    if study.tune.task is not None:
        libraries["lm_eval"] = installed.get("lm_eval")
        code.append(code_digest("loragrid/searching/objective"))
    digest = sha256_json([settings_sha256(study), code, libraries])
    return f"{study.tune.space}-{digest[:8]}"


class TrialRunner:
    """Trains one trial after another on the same base, each with a fresh adapter.

    `score`: the objective's value of a trained model; None for the validation loss.
    """

    def __init__(self, study: Study, data_folder: Path, *, score: Callable[[Any], float] | None = None) -> None:
        self.study, self.tune, self.data_folder, self.score = study, study.tune, data_folder, score
        self.device = torch_device()
        self.backend: Backend = choose_backend(
            study.base_case.backend, device=self.device, method=_hardest_method(study)
        )
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
        """The rows that trials train on, and the validation rows that they are measured on."""
        if self._data is None:
            self._data = search_rows(self.study, self.data_folder)
        return self._data

    def rows(self) -> dict[str, int]:
        """The numbers of rows that trials train on and are measured on."""
        return {"training": len(self.data.train), "validation": len(self.data.heldout)}

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
            value = self._value(trainer.model, progress) if outcome == "complete" else None
            self._base = self.backend.release(self._base, trainer.model)
        except Exception as error:
            if isinstance(error, UserError | Failed) or disk_full(error, folder):
                raise
            traceback.print_exc()  # In the job's log: the table has room for one line only.
            (outcome, reason), value = failed(error), None
            # The error may have left an adapter or a half-finished update on the base.
            self._drop_base()
        # The trainer holds the last reference to the adapter and the optimizer's state.
        trainer = None
        self._free_memory()
        result = trial_result(progress, outcome=outcome, reason=reason, seconds=time.monotonic() - began)
        return replace(result, value=value)

    def _value(self, model: Any, progress: TrialProgress) -> float:
        """The objective's value of a complete trial; raises ValueError if it is not finite."""
        if self.score is None:
            return progress.losses.last("heldout").loss
        value = self.score(model)
        if not math.isfinite(value):
            raise ValueError(f"{self.tune.objective} is {value}")
        return value

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
            with RepeatedLines(progress.report, seconds=REPORT_SECONDS / 2):
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


def _hardest_method(study: Study) -> str:
    """A method of the search that unsloth does not train, if there is one: all trials share a backend."""
    searched = study.tune.spaces[study.tune.space].get("method", {})
    methods = searched.get("choices", [study.base_case.method])
    return min(methods, key=lambda method: METHODS[method].unsloth)
