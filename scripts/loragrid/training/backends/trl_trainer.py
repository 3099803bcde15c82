"""The trainer of the backend trl: TRL's, with the project's hooks and a loss without metrics that nothing reports."""

from functools import cache
from typing import Any

from loragrid.models.passes.padding_free import loss_only
from loragrid.models.passes.row_losses import network_of
from loragrid.training.backends.head_loss import head_loss, supports_head_loss
from loragrid.training.backends.liger_kernels import LigerKernels
from loragrid.training.backends.lora_layers import speed_up_lora
from loragrid.training.checkpoints import CheckpointStore
from loragrid.training.progress import Progress
from loragrid.training.ranks.rank_hooks import RankHooks


@cache
def import_trainer() -> type:
    """The trainer's class; made on first use because importing its parent takes seconds."""
    from transformers import PrinterCallback, Trainer
    from trl import SFTTrainer

    class TrlTrainer(RankHooks, SFTTrainer):
        kernels: LigerKernels | None = None
        head_loss = False  # whether head_loss.py computes the loss

        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            # It prints every log; `Progress` prints its own line.
            self.remove_callback(PrinterCallback)

        def attach_progress(self, progress: Progress, store: CheckpointStore) -> None:
            super().attach_progress(progress, store)
            # Processes that train a run together add in the order of PyTorch's own operations, split base or not.
            if self.args.use_cpu and not self.args.bf16 and self.ranks.count == 1:
                speed_up_lora(self.model)
                self.head_loss = self.model_accepts_loss_kwargs and supports_head_loss(network_of(self.model))

        def training_step(self, *arguments: Any, **named: Any) -> Any:
            if self.kernels is None:
                return super().training_step(*arguments, **named)
            # The backward pass too: with recomputation it computes the layers again.
            with self.kernels.in_place():
                return super().training_step(*arguments, **named)

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            # TRL's version also computes the entropy and accuracy of every token, in float32 over
            # the whole vocabulary, which nothing here reports. The loss is transformers' in both.
            inputs["use_cache"] = False
            # The chunked loss leaves positions without loss out itself.
            if self.per_sample and self.args.loss_type == "nll":
                inputs |= loss_only(inputs["labels"])
                if self.head_loss and self.kernels is None and num_items_in_batch is not None:
                    return head_loss(network_of(model), inputs, items=num_items_in_batch)
            return Trainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)

    return TrlTrainer
