"""Loss on held-out rows, item by item, on the very tokens and labels that training would have used."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loragrid.errors import UserError, first_line
from loragrid.models.batch_sizes import LOGITS_PER_PASS, TOKENS_PER_PASS
from loragrid.runtime.atomic_files import sha256_json
from loragrid.scoring.task_results import TaskResult

if TYPE_CHECKING:
    import pyarrow
    from transformers import PreTrainedModel

IGNORED = -100  # the label that carries no loss, as in torch's cross_entropy
Row = tuple[Sequence[int], Sequence[int]]


def heldout_loss(model: "PreTrainedModel", parquet: Path, *, batch_size: int) -> TaskResult:
    """Score `heldout.parquet` (columns row, input_ids, labels): metrics `loss` (nats per loss token, weighted by tokens)
    and `perplexity`; per item `loss` (the row's mean) and `loss_tokens` (its weight). All rows, whatever `limit` says."""
    ids, rows = read_rows(parquet)
    sums = token_losses(model, rows, batch_size=batch_size)
    items = []
    for item, row, (total, count) in zip(ids, rows, sums, strict=True):
        # What is asked of the model is the row itself: its tokens, and which of them carry loss.
        asked = {"item": item, "prompt_sha256": sha256_json(row), "output": ""}
        items.append(asked | {"metric": "loss", "value": total / count})
        items.append(asked | {"metric": "loss_tokens", "value": float(count)})
    loss, stderr = weighted_mean(sums)
    perplexity = math.exp(loss)
    return TaskResult(
        items=items,
        primary_metric="loss",
        metrics={
            "loss": {"value": loss, "stderr": stderr, "higher_is_better": False},
            # Delta method: the standard error of exp(x) is exp(x) times that of x.
            "perplexity": {
                "value": perplexity,
                "stderr": None if stderr is None else perplexity * stderr,
                "higher_is_better": False,
            },
        },
        notes=(),
        lm_eval=None,
    )


def read_rows(parquet: Path) -> tuple[list[str], list[Row]]:
    """Row ids and (input_ids, labels) of a tokenised data set; a file that is missing or of another form is a `UserError`."""
    table = read_columns(parquet, ["row", "input_ids", "labels"]).to_pydict()
    rows = list(zip(table["input_ids"], table["labels"], strict=True))
    if not rows:
        raise UserError(f"{parquet} holds no row: set data.heldout_rows higher and run prepare_data again")
    for row, (ids, labels) in zip(table["row"], rows, strict=True):
        if len(ids) != len(labels) or all(label == IGNORED for label in labels[1:]):
            raise UserError(f"{parquet}: row {row} carries no loss: run prepare_data again")
    return [str(row) for row in table["row"]], rows


def read_columns(parquet: Path, columns: list[str]) -> "pyarrow.Table":
    """Columns of a tokenised data set; a file that is missing or of another form is a `UserError`."""
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(parquet, columns=columns).select(columns)
    except (OSError, pyarrow.ArrowException, KeyError) as error:
        raise UserError(
            f"{parquet} cannot be read as a tokenised data set ({first_line(error)}): run prepare_data again"
        ) from None


def token_losses(model: "PreTrainedModel", rows: Sequence[Row], *, batch_size: int) -> list[tuple[float, int]]:
    """Per row the sum of negative log-likelihoods, nats, over the tokens that carry loss, and their number.

    Rows of like length share a pass, padded on the right with a masked token: causal attention never sees it.
    Raises ValueError for a row longer than the model's context.
    """
    config = model.config.get_text_config()
    longest = max(len(ids) for ids, _ in rows)
    if longest > config.max_position_embeddings:
        raise ValueError(
            f"a row of {longest} tokens is longer than the model's context of {config.max_position_embeddings}"
        )
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index][0]))
    results: dict[int, tuple[float, int]] = {}
    while order:
        tokens = min(TOKENS_PER_PASS, LOGITS_PER_PASS // config.vocab_size)
        size = min(batch_size, max(1, tokens // len(rows[order[0]][0])))
        batch, order = order[:size], order[size:]
        results |= zip(batch, _one_pass(model, [rows[index] for index in batch]))
    return [results[index] for index in range(len(rows))]


def _one_pass(model: "PreTrainedModel", rows: Sequence[Row]) -> list[tuple[float, int]]:
    import torch
    from torch.nn.functional import cross_entropy

    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids, _ in rows], device=model.device)
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows], device=model.device)
    labels = torch.tensor([[*row, *[IGNORED] * (width - len(row))] for _, row in rows], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        losses = cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none")
        sums, counts = losses.double().sum(dim=1), (labels[:, 1:] != IGNORED).sum(dim=1)
    return list(zip(sums.tolist(), counts.tolist(), strict=True))


def weighted_mean(sums: Sequence[tuple[float, int]]) -> tuple[float, float | None]:
    """Mean over all tokens of rows given as (sum, tokens), and its standard error with the row as the sampled unit.

    A ratio of two sums; the error is the usual linearised one (Cochran 1977, Sampling Techniques, section 2.11).
    A single row tells no spread: None.
    """
    tokens, n = sum(count for _, count in sums), len(sums)
    mean = sum(total for total, _ in sums) / tokens
    if n < 2:
        return mean, None
    residuals = sum((total - mean * count) ** 2 for total, count in sums)
    return mean, math.sqrt(residuals * n / (n - 1)) / tokens
