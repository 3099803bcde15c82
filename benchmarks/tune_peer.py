"""The peer: a search written with Optuna, TRL and PEFT alone. Its trials are those of loragrid's search.

Each trial loads base and tokenizer, evaluates with SFTTrainer at the same updates on the same validation rows, and reports to
Optuna in a callback. Rows are tokenised and settings drawn beforehand, and each trial ends where the search's trial ended, so
that only the trials are compared. Optuna keeps them in memory.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from benchmarks.plain_trl import PlainRun, make_trainer
from loragrid.searching.validation_rows import search_rows
from loragrid.study.budget import plan_steps
from loragrid.study.search.search_point import at_point
from loragrid.study.study_file import Study


@dataclass(frozen=True)
class PeerResult:
    """A trial's last validation loss, and how often it was measured."""

    loss: float
    evaluations: int


class PrunesWhereSearchPruned(optuna.pruners.BasePruner):
    """Prunes at the measurement at which the search pruned the same trial (`measurements` in the trial's attributes)."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return len(trial.intermediate_values) >= trial.user_attrs["measurements"]


class Peer:
    """Optuna study and data of the plain script."""

    def __init__(self, study: Study, data: Path, folder: Path) -> None:
        self.study, self.tune, self.folder = study, study.tune, folder
        rows = search_rows(study, data)
        self.train = rows.train.select_columns(["input_ids", "labels"])
        self.heldout = rows.heldout.select_columns(["input_ids", "labels"])
        self.optuna = optuna.create_study(direction="minimize", pruner=PrunesWhereSearchPruned())

    def run(self, point: dict[str, Any], *, measurements: float = math.inf) -> PeerResult:
        """Run one trial by `study.optimize`, pruned after `measurements` measurements."""
        self.optuna.enqueue_trial({}, user_attrs={"point": point, "measurements": measurements})
        self.optuna.optimize(self._objective, n_trials=1)
        values = self.optuna.trials[-1].intermediate_values
        return PeerResult(values[max(values)], len(values))

    def _objective(self, trial: optuna.Trial) -> float:
        from transformers import AutoTokenizer

        study = at_point(self.study, trial.user_attrs["point"], budget=self.tune.budget)
        cell = study.cells[0]
        steps = plan_steps(
            self.tune.budget,
            lengths_tokens=[len(row) for row in self.train["input_ids"]],
            per_device=cell.settings.per_device,
            accumulation=cell.settings.accumulation,
        )
        tokenizer = AutoTokenizer.from_pretrained(study.models[cell.model].path)
        run = PlainRun(study, cell, self.folder, rows=(self.train, self.heldout), tokenizer=tokenizer, steps=steps)
        trainer = make_trainer(
            run,
            callbacks=(reporting(trial, steps=steps, parts=self.tune.evaluations),),
            per_device_eval_batch_size=8,
            eval_strategy="no",  # the callback decides when
            save_strategy="no",
        )
        trainer.train()
        return trainer.state.log_history[-2]["eval_loss"]  # the last row is the summary


def reporting(trial: optuna.Trial, *, steps: int, parts: int) -> Any:
    """A callback that evaluates after each of `parts` equal parts of the steps and reports to Optuna, which may prune the trial."""
    from transformers import TrainerCallback

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            done = state.global_step
            control.should_evaluate = done * parts // steps > (done - 1) * parts // steps

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            trial.report(metrics["eval_loss"], state.global_step)
            if state.global_step < steps and trial.should_prune():
                raise optuna.TrialPruned

    return Report()
