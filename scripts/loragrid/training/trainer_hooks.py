"""What every backend adds to its library's trainer: follow the progress, save whole checkpoints, weigh held-out tokens.

A mixin in front of TRL's `SFTTrainer` (or a library's own version of it). The training loop stays the library's: only
its hooks are overridden. torch and transformers are imported inside the methods, since some backends must import
theirs first.
"""

import random
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from loragrid.models.adapter_files import write_peft_files
from loragrid.training.checkpoints import CheckpointStore
from loragrid.training.progress import Progress, StoppedBeforeUpdate


class TrainerHooks:
    """Overrides of transformers' `Trainer`; needs `self.heldout`, a list of batches on the CPU, set by the backend."""

    progress: Progress
    store: CheckpointStore
    heldout: list[dict[str, Any]]
    notes: tuple[str, ...] = ()
    per_sample = False  # whether a batch is one row of samples (study.backends.padding_free)

    def lengths_tokens(self) -> list[int]:
        """Tokens of each training row, after packing if there is any."""
        import pyarrow.compute

        rows = self.train_dataset.with_format("arrow")[:]
        return pyarrow.compute.list_value_length(rows["input_ids"]).to_pylist()

    def attach_progress(self, progress: Progress, store: CheckpointStore) -> None:
        """Train `progress.planned_steps` updates; the schedule needs their number before the first."""
        self.progress, self.store = progress, store
        self.args.max_steps = progress.planned_steps
        # The base itself is measured first; a resumed run that was stopped before a measurement makes up for it.
        self.args.eval_on_start = progress.evaluation_due(progress.totals.step)

    def finish(self, checkpoint: str) -> None:
        """Load a checkpoint that has no update left (`train` would do one more) and measure what is still due."""
        self._load_from_checkpoint(checkpoint)
        self._load_rng_state(checkpoint)
        if self.progress.evaluation_due(self.progress.totals.step):
            self.evaluate()

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: Any) -> Any:
        """The batches of one update, counted on the way."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            self.progress.count_batches(**_count(batches))
        return batches, items

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """After every update: turn the trainer's log into a loss row and let the progress decide what is next.

        The trainer logs first, then evaluates, then saves, each if its flag is set by then. TRL's running means of
        other metrics are not kept.
        """
        if "loss" in logs:
            step, progress = self.state.global_step, self.progress
            progress.record_update(
                step=step,
                loss=logs["loss"],
                learning_rate=logs["learning_rate"],
                grad_norm=logs.get("grad_norm"),
                skipped=bool(self.accelerator.optimizer_step_was_skipped),
            )
            stops = progress.must_stop(step)
            self.control.should_evaluate = progress.evaluation_due(step) and not stops
            self.control.should_save = stops or progress.save_due(step)
            self.control.should_training_stop |= stops
        if self.args.report_to:
            self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Held-out loss per loss token over all held-out rows, so that neither padding nor batching matters.

        transformers averages batch means, which weighs a token in a short batch more. Draws no random number: a run
        with another evaluation interval trains the same. A wish to stop leaves it unmeasured, to be made up for.
        """
        import torch

        self.control.should_evaluate = False
        began = time.monotonic()
        total, count = 0.0, 0
        self.model.eval()
        with torch.no_grad():
            for batch in self.heldout:
                if self.progress.stop.requested:
                    self._stop_here()
                    return {}
                inputs = self._prepare_inputs(dict(batch))
                tokens = int((batch["labels"][:, 1:] != -100).sum())
                with self.compute_loss_context_manager():
                    total += float(self.compute_loss(self.model, inputs)) * tokens
                count += tokens
        self.model.train()
        loss = total / count
        self.progress.record_heldout_loss(step=self.progress.totals.step, loss=loss, seconds=time.monotonic() - began)
        self._stop_here()
        if self.args.report_to:
            self.control = self.callback_handler.on_log(self.args, self.state, self.control, {"eval_loss": loss})
        return {"eval_loss": loss}

    def _stop_here(self) -> None:
        """Save and leave after this step, if that was asked for or the session's time ran out meanwhile.

        Before the session's first update there is nothing to save, and the trainer would still run a batch, whose
        dropout would be drawn twice: leave at once. A time limit waits for that update, or no session would get on.
        """
        progress = self.progress
        if progress.updates_in_session == 0:
            if progress.stop.requested:
                progress.must_stop(progress.totals.step)
                raise StoppedBeforeUpdate
        elif progress.must_stop(progress.totals.step):
            self.control.should_save = self.control.should_training_stop = True

    def floating_point_ops(self, inputs: Any) -> int:
        """0: transformers walks all modules for every batch to estimate this, 4 % of a small model's time; unused."""
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Replace transformers' save: only what resuming needs, whole or not at all."""
        began = time.monotonic()
        self.store.save(step=self.state.global_step, state=self.progress.state(), write=self._write_state)
        self.progress.record_save(time.monotonic() - began)

    def _write_state(self, folder: Path) -> None:
        write_peft_files(self.model, folder)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / "trainer_state.json"))


def _count(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples, tokens, loss tokens, positions and content of an update's batches.

    A padded batch has an attention mask; one without padding is a single row whose position ids begin anew with each
    sample. The first token of a sample is predicted from nothing and never carries loss.
    """
    counts: dict[str, Any] = {"samples": 0, "tokens": 0, "loss_tokens": 0, "positions": 0}
    content = sha256()
    for batch in batches:
        ids = batch["input_ids"]
        mask = batch.get("attention_mask")
        counts["positions"] += ids.numel()
        counts["tokens"] += ids.numel() if mask is None else int(mask.sum())
        counts["samples"] += ids.shape[0] if mask is not None else int((batch["position_ids"] == 0).sum())
        counts["loss_tokens"] += int((batch["labels"][:, 1:] != -100).sum())
        content.update(ids.cpu().numpy().tobytes())
    return counts | {"content": content.digest()}


def random_state_sha256() -> str:
    """Digest of the states of Python's, numpy's and torch's random number generators, those of all GPUs included."""
    import numpy as np
    import torch

    _, key, *position = np.random.get_state()  # how far into the key, and a normal number kept for the next call
    digest = sha256(repr((random.getstate(), position)).encode())
    digest.update(key.tobytes())
    for state in (torch.random.get_rng_state(), *torch.cuda.get_rng_state_all()):
        digest.update(state.numpy().tobytes())
    return digest.hexdigest()
