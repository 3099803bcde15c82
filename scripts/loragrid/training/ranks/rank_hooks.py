"""Overrides of a trainer that is one of several ranks of a run (processes.py).

Every rank reads the rows of the whole update, as one process does, and computes its own batches of them. So the order
of the rows, the counts and the checkpoints are those of one process, and the losses differ by rounding only.
"""

import tempfile
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.models.passes.row_losses import RowLoss, largest_pass, passes, row_losses
from loragrid.scoring.heldout.kept_losses import Measured
from loragrid.training.checkpoint_files import rng_file
from loragrid.training.checkpoints import CheckpointStore
from loragrid.training.progress import Progress
from loragrid.training.ranks.processes import ONE_RANK, AgreedStop, Ranks
from loragrid.training.trainer_hooks import TrainerHooks

RNG_FILE = rng_file(0)


class RankHooks(TrainerHooks):
    """`TrainerHooks` for any number of ranks; with one it changes nothing. The caller sets `ranks`."""

    ranks: Ranks = ONE_RANK
    _own_loss: Any = None
    _left: int = 0
    _other_states: tuple[bytes, ...] = ()

    def attach_progress(self, progress: Progress, store: CheckpointStore) -> None:
        """As in `TrainerHooks`; from here on the ranks stop together."""
        if self.ranks.count > 1:
            if not self.model_accepts_loss_kwargs:
                model = type(self.model).__name__
                raise UserError(f"training.gpus: {model} cannot sum its loss over GPUs. Fix: set training.gpus to 1.")
            progress.stop = AgreedStop(progress.stop, self.ranks)
            progress.stop.agree()
            if self.ranks.rank > 0:
                _draw_other_numbers(self.args.seed + self.ranks.rank)
        super().attach_progress(progress, store)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: Any) -> Any:
        """The batches of one update, all counted; those of other ranks are None, and the own ones come last."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.ranks.count == 1 or not batches:
            return batches, items
        own = batches[self.ranks.rank :: self.ranks.count]
        # All ranks compute equally many: a base that is split over the cards needs all of them for each.
        each = -(-len(batches) // self.ranks.count)
        own += [without_loss(batches[0])] * (each - len(own))
        self._own_loss, self._left = None, each
        # The trainer counts what it is given, so the number of entries stays.
        return [None] * (len(batches) - each) + own, items

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Forward and backward pass of a batch; after the last one, gradients and loss are those of all ranks."""
        import torch

        if self.ranks.count == 1:
            return super().training_step(model, inputs, num_items_in_batch)
        nothing = torch.zeros((), device=self.args.device)
        if inputs is None:
            return nothing
        # A copy: the filler of an incomplete update may be used twice.
        loss = super().training_step(model, dict(inputs), num_items_in_batch)
        self._own_loss = loss if self._own_loss is None else self._own_loss + loss
        self._left -= 1
        if self._left:
            return nothing
        self.ranks.add_gradients(parameter for parameter in self.model.parameters() if parameter.requires_grad)
        return self.ranks.add_number(self._own_loss.float())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in `TrainerHooks`; then all ranks take over rank 0's decisions."""
        super().log(logs, start_time)
        if "loss" in logs:
            self._agree()

    def _agree(self) -> None:
        """A stop that any rank was asked for stops all; rank 0's clock decides everything else."""
        if self.ranks.count == 1:
            return
        progress, control = self.progress, self.control
        progress.stop.agree()
        if progress.stop.requested and not control.should_training_stop:
            progress.must_stop(progress.totals.step)
            control.should_evaluate, control.should_save, control.should_training_stop = False, True, True
        decided = control.should_evaluate, control.should_save, control.should_training_stop, progress.stop_reason
        decided = self.ranks.first(decided)
        control.should_evaluate, control.should_save, control.should_training_stop, progress.stop_reason = decided

    def measure_heldout(self) -> Generator[dict[int, RowLoss]]:
        """As in `TrainerHooks`; the ranks take turns at the passes, which are those of one process."""
        if self.ranks.count == 1:
            yield from super().measure_heldout()
            return
        vocabulary = self.model.config.get_text_config().vocab_size
        positions = largest_pass(self.model.device.type, vocabulary=vocabulary)
        together = list(passes([len(ids) for ids, _ in self.heldout], positions))
        for first in range(0, len(together), self.ranks.count):
            # In the last round some have none left, but a base that is split over the cards needs all ranks.
            own = together[min(first + self.ranks.rank, len(together) - 1)]
            losses = row_losses(self.model, [self.heldout[place] for place in own])
            found = self.ranks.exchange(dict(zip(own, losses, strict=True)))
            self.progress.stop.agree()
            yield {place: loss for part in found for place, loss in part.items()}

    def _locked(self) -> AbstractContextManager:
        # Otherwise the other ranks would wait for the first one in a collective operation, which has a time limit.
        return super()._locked() if self.ranks.count == 1 else nullcontext()

    def _kept_losses(self) -> Measured | None:
        return self.ranks.first(super()._kept_losses())

    def _stop_if_asked(self) -> None:
        if self.ranks.count > 1:
            self.progress.stop.agree()
        super()._stop_if_asked()
        self._agree()

    def _keep_weights(self, share: float, step: int) -> None:
        if self.ranks.rank == 0:
            super()._keep_weights(share, step)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.ranks.count > 1:
            self._check_equal_weights()
            self._other_states = tuple(self.ranks.exchange(self._rng_state())[1:])
        if self.ranks.rank == 0:
            super()._save_checkpoint(model, trial)
        # The others wait, so that a stop ends no rank before the checkpoint is whole.
        self.ranks.first(None)

    def _write_state(self, folder: Path) -> None:
        super()._write_state(folder)
        for rank, state in enumerate(self._other_states, start=1):
            (folder / rng_file(rank)).write_bytes(state)

    def _rng_state(self) -> bytes:
        """The random states of this rank, as the file that the trainer writes."""
        with tempfile.TemporaryDirectory() as folder:
            self._save_rng_state(folder)
            return Path(folder, RNG_FILE).read_bytes()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.ranks.rank == 0:
            super()._load_rng_state(checkpoint)
            return
        # The trainer looks for the name that one process has.
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, RNG_FILE).write_bytes(Path(checkpoint, rng_file(self.ranks.rank)).read_bytes())
            super()._load_rng_state(folder)

    def _check_equal_weights(self) -> None:
        """Raise `RuntimeError` unless all ranks hold the same trained weights, of which rank 0 saves its own."""
        digest = sha256()
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                digest.update(parameter.detach().cpu().contiguous().view(-1).numpy().tobytes())
        if len(set(self.ranks.exchange(digest.hexdigest()))) > 1:
            raise RuntimeError(f"the weights of the processes differ at step {self.state.global_step}")


def without_loss(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with no label: its loss and its gradients are zero."""
    labels = batch["labels"].clone()
    labels[:] = -100
    return batch | {"labels": labels}


def _draw_other_numbers(seed: int) -> None:
    """Seed dropout by rank: with equal masks the ranks' samples would lose the same parts."""
    from transformers import set_seed

    set_seed(seed)
