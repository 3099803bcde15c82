"""What the batches of an update hold, counted while the trainer reads them."""

from hashlib import sha256
from typing import Any


def count(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples, tokens, loss tokens, positions and a digest of the tokens of an update's batches."""
    counts: dict[str, Any] = {"samples": 0, "tokens": 0, "loss_tokens": 0, "positions": 0}
    content = sha256()
    for batch in batches:
        ids = batch["input_ids"]
        counts["positions"] += ids.numel()
        mask = batch.get("attention_mask")
        if mask is not None:
            counts["samples"] += ids.shape[0]
            counts["tokens"] += int(mask.sum())
        else:
            # A batch without padding is one row, whose position ids restart at 0 with each sample.
            counts["samples"] += int((batch["position_ids"] == 0).sum())
            counts["tokens"] += ids.numel()
        # The first token of a row is predicted from nothing and never carries loss.
        counts["loss_tokens"] += int((batch["labels"][:, 1:] != -100).sum())
        content.update(ids.cpu().numpy().tobytes())
    return counts | {"content": content.digest()}
