"""The peer: what one writes with Optuna, TRL and PEFT alone. The same trials, but nothing of loragrid trains them.

Base and tokenizer loaded for each trial, SFTTrainer's own evaluation at the same updates on the same held-out rows, a
callback that reports to Optuna. Rows come tokenised and settings drawn, so that only trials are compared; Optuna keeps
them in memory.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from study.budget import plan_steps
from study.grid import expand
from study.search_point import at_point
from study.study_file import Study
from study.training_data import load_training_data
from study.trial_bench import spread_rows


@dataclass(frozen=True)
class PeerResult:
    """Held-out loss at the end of a trial."""

    loss: float


class Peer:
    """Optuna study and data of the plain script."""

    def __init__(self, study: Study, data: Path, folder: Path) -> None:
        self.study, self.tune, self.folder = study, study.settings["tune"], folder
        rows = load_training_data(data)
        chosen = spread_rows(len(rows.heldout), self.tune["heldout_rows"])
        self.train = rows.train.select_columns(["input_ids", "labels"])
        self.heldout = rows.heldout.select(chosen).select_columns(["input_ids", "labels"])
        self.evaluations = 0  # of the last trial
        self.optuna = optuna.create_study(direction="minimize", pruner=optuna.pruners.NopPruner())

    def run(self, point: dict[str, Any]) -> PeerResult:
        """One trial by `study.optimize`."""
        self.optuna.enqueue_trial({}, user_attrs={"point": point})
        self.optuna.optimize(self._objective, n_trials=1)
        return PeerResult(self.optuna.trials[-1].value)

    def _objective(self, trial: optuna.Trial) -> float:
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
        from trl import SFTConfig, SFTTrainer

        settings, cell = self._settings(trial.user_attrs["point"])
        training, entry = settings["training"], settings["models"][cell.model]
        set_seed(cell.seed)
        steps = plan_steps(
            self.tune["budget"],
            lengths_tokens=[len(row) for row in self.train["input_ids"]],
            per_device=cell.batch[0],
            accumulation=cell.batch[1],
        )

        parts = self.tune["evaluations"]

        class Report(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                done = state.global_step
                control.should_evaluate = done * parts // steps > (done - 1) * parts // steps

            def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
                trial.report(metrics["eval_loss"], state.global_step)
                if trial.should_prune():
                    control.should_training_stop = True

        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(entry["path"], dtype="float32"),
            processing_class=AutoTokenizer.from_pretrained(entry["path"]),
            train_dataset=self.train,
            eval_dataset=self.heldout,
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=cell.rank,
                lora_alpha=cell.identity["training"]["alpha"],
                lora_dropout=training["dropout"],
                target_modules=training["target_modules"],
            ),
            args=SFTConfig(
                output_dir=str(self.folder),
                max_steps=steps,
                per_device_train_batch_size=cell.batch[0],
                gradient_accumulation_steps=cell.batch[1],
                per_device_eval_batch_size=8,
                learning_rate=cell.learning_rate,
                lr_scheduler_type=training["schedule"],
                warmup_steps=training["warmup_steps"],
                weight_decay=training["weight_decay"],
                max_grad_norm=training["max_grad_norm"],
                optim=training["optimizer"],
                seed=cell.seed,
                eval_strategy="no",  # the callback says when
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                loss_type="nll",
                dataset_kwargs={"skip_prepare_dataset": True},
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=True,
                max_length=None,
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            callbacks=[Report()],
        )
        trainer.train()
        measured = [row for row in trainer.state.log_history if "eval_loss" in row]
        self.evaluations = len(measured)
        return measured[-1]["eval_loss"]

    def _settings(self, point: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        study = at_point(self.study, point, budget=self.tune["budget"])
        return study.settings, expand(study)[0]
