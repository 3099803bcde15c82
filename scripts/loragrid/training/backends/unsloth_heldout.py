"""The held-out loss with unsloth, whose models take a loss from labels and not every choice of logits."""

from collections.abc import Generator, Sequence
from typing import Any

from loragrid.models.passes.row_losses import IGNORED, Row, RowLoss, largest_pass, passes


def measure_batches(trainer: Any, rows: Sequence[Row], *, pad_token_id: int) -> Generator[dict[int, RowLoss]]:
    """Losses of batches of rows, each under the place of its first row; the next batch waits for the caller."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(pad_token_id=pad_token_id)
    model = trainer.model
    vocabulary = model.config.get_text_config().vocab_size
    positions = largest_pass(model.device.type, vocabulary=vocabulary)
    for places in passes([len(ids) for ids, _ in rows], positions):
        batch = collate([{"input_ids": rows[place][0], "labels": rows[place][1]} for place in places])
        # A batch's loss is a mean over its loss tokens; the first token has no prediction.
        tokens = int((batch["labels"][:, 1:] != IGNORED).sum())
        with torch.no_grad():
            loss = float(trainer.compute_loss(model, trainer._prepare_inputs(dict(batch))))
        yield {places[0]: RowLoss(loss * tokens, tokens)}
