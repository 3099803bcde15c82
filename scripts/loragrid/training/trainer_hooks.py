"""Overrides that every backend adds to its library's trainer.

They report to `Progress`, save whole checkpoints, and weigh the held-out loss by token.
`TrainerHooks` is a mixin in front of TRL's `SFTTrainer` or a library's own version of it: the
training loop stays the library's. torch and transformers are imported inside the methods, because
some backends must import their own library first.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

from loragrid.models.adapter_files import MODEL_WEIGHTS, along_folder, is_adapter, save_trained, write_resumable
from loragrid.models.attached_adapters import merged
from loragrid.models.passes.row_losses import Row, RowLoss, measure_passes
from loragrid.runtime.progress_lines import ProgressLines
from loragrid.scoring.heldout.kept_losses import KeptLosses, Measured
from loragrid.study.batch_shares import StepLayout
from loragrid.study.settings import Warmup
from loragrid.training.batch_counts import count
from loragrid.training.checkpoints import CheckpointStore
from loragrid.training.float16_check import Float16Check
from loragrid.training.progress import Progress, StoppedBeforeUpdate


class TrainerHooks:
    """Overrides of transformers' `Trainer`; the backend sets `heldout`, the rows to measure.

    `learning_rate_ratio` is that of LoRA+ (None: one learning rate for all parameters). `base_losses`:
    the file with the base's held-out losses, if the untrained model computes as the base does.
    `last_measured`: each held-out row's loss by the newest measurement of this session.
    """

    progress: Progress
    store: CheckpointStore
    heldout: list[Row]
    base_losses: KeptLosses | None = None
    last_measured: Measured | None = None
    warmup: Warmup
    learning_rate_ratio: float | None = None
    notes: tuple[str, ...] = ()
    # Name of the attention in use, and how the rows of an update run.
    attention = ""
    layout: StepLayout
    float16_check: Float16Check | None = None
    per_sample = False  # a batch is one row of samples, which attention takes one by one (padding_free.py)

    def lengths_tokens(self) -> list[int]:
        """Tokens of each training row, after packing if there is any."""
        import pyarrow.compute

        rows = self.train_dataset.with_format("arrow")[:]
        return pyarrow.compute.list_value_length(rows["input_ids"]).to_pylist()

    def attach_progress(self, progress: Progress, store: CheckpointStore) -> None:
        """Let `progress` control the training and `store` keep its checkpoints; before `train`."""
        self.progress, self.store = progress, store
        # The learning rate schedule needs the number of updates before the first one.
        self.args.max_steps = progress.planned_steps
        self.args.warmup_steps = self.warmup.updates(progress.planned_steps)
        # A fresh run measures the base itself. A resumed one makes up for a measurement that its
        # earlier session was stopped in.
        self.args.eval_on_start = progress.evaluation_due(progress.totals.step)

    def finish(self, checkpoint: str) -> None:
        """Load a checkpoint of the last step and make the measurement that may still be due."""
        # Not `train`, which makes one more update when it resumes a finished run.
        self._load_from_checkpoint(checkpoint)
        self._load_rng_state(checkpoint)
        if self.progress.evaluation_due(self.progress.totals.step):
            self.evaluate()

    def create_optimizer(self, *arguments: Any, **named: Any) -> Any:
        """The study's optimizer; for LoRA+ with a higher learning rate for B (Hayou et al. 2024)."""
        if self.learning_rate_ratio is None or self.optimizer is not None:
            return super().create_optimizer(*arguments, **named)
        from peft.optimizers import create_loraplus_optimizer

        kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        self.optimizer = create_loraplus_optimizer(
            self.model,
            kind,
            loraplus_lr_ratio=self.learning_rate_ratio,
            loraplus_weight_decay=self.args.weight_decay,
            **options,
        )
        return self.optimizer

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: Any) -> Any:
        """The batches of one update, which are counted on the way."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            self.progress.count_batches(**count(batches))
        return batches, items

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """After every update: record its loss, then set the flags to evaluate, save or stop.

        TRL's running means of other metrics are not kept.
        """
        if "loss" in logs:
            step, progress = self.state.global_step, self.progress
            self._check_float16(step, logs["loss"])
            progress.record_update(
                step=step,
                loss=logs["loss"],
                learning_rate=logs["learning_rate"],
                grad_norm=logs.get("grad_norm"),
                skipped=bool(self.accelerator.optimizer_step_was_skipped),
            )
            # Before a checkpoint of this step: a resumed run does not make the step again.
            for share in progress.shares_due(step):
                self._keep_weights(share, step)
            stops = progress.must_stop(step)
            # The trainer logs first, then evaluates, then saves, each if its flag is set by then.
            # On a stop the measurement waits for the next session: only saving is urgent.
            self.control.should_evaluate = progress.evaluation_due(step) and not stops
            self.control.should_save = stops or progress.save_due(step)
            self.control.should_training_stop |= stops
        if self.args.report_to:
            self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The held-out loss, nats per loss token over all held-out rows: `{"eval_loss": loss}`.

        Neither padding nor the batch size matters; transformers' own mean of batch means would
        give a token in a short batch more weight. A requested stop ends the measurement early and
        returns an empty dictionary: the next session makes up for it.
        """
        # transformers resets this flag in callbacks that this override does not call.
        self.control.should_evaluate = False
        began, step = time.monotonic(), self.progress.totals.step
        measured = self._base_losses() if step == 0 else self._measure()
        if measured is None:
            self._stop_if_asked()
            return {}
        self.last_measured = measured
        loss = sum(row.nats for row in measured.losses) / sum(row.tokens for row in measured.losses)
        self._check_float16(step, loss)
        self.progress.record_heldout_loss(step=step, loss=loss, seconds=time.monotonic() - began)
        self.progress.expect_evaluation(measured.seconds)
        self._stop_if_asked()
        logs = {"eval_loss": loss}
        if self.args.report_to:
            self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)
        return logs

    def _base_losses(self) -> Measured | None:
        """The losses before the first update: those of the base where another job has measured them."""
        with self._locked():
            measured = self._kept_losses()
            if measured is None:
                measured = self._measure()
                if measured is not None and self.base_losses is not None:
                    self.base_losses.write(measured)
        return measured

    def _locked(self) -> AbstractContextManager:
        kept, stop = self.base_losses, self.progress.stop
        return nullcontext() if kept is None else kept.locked(give_up=lambda: bool(stop.requested))

    def _kept_losses(self) -> Measured | None:
        return None if self.base_losses is None else self.base_losses.read(rows=len(self.heldout))

    def _measure(self) -> Measured | None:
        """The losses of the held-out rows in their order, None if a stop is requested meanwhile."""
        began, found = time.monotonic(), {}
        # Without dropout no random number is drawn, so the evaluation interval changes no weight.
        self.model.eval()
        lengths = [len(ids) for ids, _ in self.heldout]
        label = f"[{self.progress.run}] {self.progress.rows_name} loss"
        lines = ProgressLines(label, total=len(lengths), items="rows", tokens=sum(lengths))
        # A measurement that ends early is closed, which restores weights that it has merged.
        with lines, closing(self.measure_heldout()) as measuring:
            while not self.progress.stop.requested:
                with self.compute_loss_context_manager():
                    part = next(measuring, None)
                if part is None:
                    self.model.train()
                    return Measured([found[place] for place in sorted(found)], time.monotonic() - began)
                found |= part
                lines.add(items=len(part), tokens=sum(lengths[place] for place in part))
        return None

    def measure_heldout(self) -> Generator[dict[int, RowLoss]]:
        """The losses of the held-out rows by their places, pass after pass."""
        with merged(self.model):
            yield from measure_passes(self.model, self.heldout)

    def _check_float16(self, step: int, loss: float) -> None:
        if self.float16_check is not None:
            self.float16_check.verify(step=step, loss=loss)

    def _stop_if_asked(self) -> None:
        """Save and leave after this step if a stop was requested or the session ran out of time."""
        progress = self.progress
        if progress.updates_in_session > 0:
            if progress.must_stop(progress.totals.step):
                self.control.should_save = self.control.should_training_stop = True
        elif progress.stop.requested:
            # Nothing to save before the first update. The trainer would still run a batch before it
            # looks at its flags, and draw that batch's dropout a second time after resuming.
            progress.must_stop(progress.totals.step)
            raise StoppedBeforeUpdate
        # A time limit before the first update waits for it, or no number of sessions would finish.

    def floating_point_ops(self, inputs: Any) -> int:
        """0, because nothing here uses the count.

        transformers walks all modules for every batch to estimate it: 4 % of a small model's time.
        """
        return 0

    def _keep_weights(self, share: float, step: int) -> None:
        began = time.monotonic()
        folder = along_folder(Path(self.args.output_dir), share)

        def save() -> None:
            save_trained(self.model, folder, tokenizer=self.processing_class)

        self.store.keep_weights(step=step, save=save)
        self.progress.record_kept(time.monotonic() - began)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if is_adapter(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        from safetensors.torch import load_model

        # transformers' own ignores weights that are missing.
        load_model(self.model, Path(resume_from_checkpoint, MODEL_WEIGHTS), strict=True)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # transformers' own writes into the final folder: a kill leaves half a checkpoint there.
        began = time.monotonic()
        self.store.save(step=self.state.global_step, state=self.progress.state(), write=self._write_state)
        self.progress.record_save(time.monotonic() - began)

    def _write_state(self, folder: Path) -> None:
        """Everything that decides the next update's bits, and no more: resuming must be exact."""
        write_resumable(self.model, folder)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / "trainer_state.json"))
