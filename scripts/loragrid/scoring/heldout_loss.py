"""Held-out loss per row, on the tokens and labels that training uses."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError, first_line
from loragrid.models.batch_sizes import LOGITS_PER_PASS, TOKENS_PER_PASS
from loragrid.runtime.atomic_files import sha256_json
from loragrid.scoring.target_texts import IGNORED, Row, target_text
from loragrid.scoring.task_results import TaskResult

if TYPE_CHECKING:
    import pyarrow
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

NATS_PER_BIT = math.log(2)


def heldout_loss(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", parquet: Path, *, batch_size: int
) -> TaskResult:
    """The loss on all rows of `heldout.parquet` (columns row, input_ids, labels).

    `scoring.limit` does not apply.

    Metrics: `loss` (nats per loss token, weighted by tokens), `perplexity` and `bits_per_byte` (see
    `_bits_per_byte`). Items: each row's mean `loss` and its weight, `loss_tokens`, and its
    `bits_per_byte` and their weight, `target_bytes`. Raises as `read_rows` and `token_losses` do.
    """
    ids, rows = read_rows(parquet)
    sums = token_losses(model, rows, batch_size=batch_size)
    items = []
    for item, row, (total, count) in zip(ids, rows, sums, strict=True):
        # The "prompt" is the row itself: its tokens, and which of them carry loss.
        common = {"item": item, "prompt_sha256": sha256_json(row), "output": ""}
        items.append(common | {"metric": "loss", "value": total / count})
        items.append(common | {"metric": "loss_tokens", "value": float(count)})
    texts = [target_text(tokenizer, row) for row in rows]
    by_byte, by_byte_metrics = _bits_per_byte(ids, texts, [total for total, _ in sums])
    return TaskResult(
        items=items + by_byte,
        primary_metric="loss",
        metrics=_loss_metrics(sums) | by_byte_metrics,
        notes=(),
        lm_eval=None,
    )


def _loss_metrics(sums: Sequence[tuple[float, int]]) -> dict[str, dict[str, Any]]:
    loss, stderr = weighted_mean(sums)
    perplexity, perplexity_stderr = math.exp(loss), None
    if stderr is not None:
        # Delta method: the standard error of exp(x) is exp(x) times that of x.
        perplexity_stderr = perplexity * stderr
    return {
        "loss": {"value": loss, "stderr": stderr, "higher_is_better": False},
        "perplexity": {"value": perplexity, "stderr": perplexity_stderr, "higher_is_better": False},
    }


def _bits_per_byte(
    ids: Sequence[str], texts: Sequence[str], nats: Sequence[float]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Items and metric of the bits that a model needs per UTF-8 byte of a row's target text.

    The bits are those of all loss tokens, so the end of a reply must be predicted too; its token has
    no bytes. Unlike a loss per token this does not depend on the tokenizer (Gao et al., 2020, The
    Pile, section 3.1). `prompt_sha256` of these items is the digest of the text: models are compared
    on rows of equal text. A row whose loss tokens have no text has no such items.
    """
    items, sums = [], []
    for item, text, total in zip(ids, texts, nats, strict=True):
        bits, count = total / NATS_PER_BIT, len(text.encode())
        if count == 0:
            continue
        sums.append((bits, count))
        common = {"item": item, "prompt_sha256": sha256_json(text), "output": ""}
        items.append(common | {"metric": "bits_per_byte", "value": bits / count})
        items.append(common | {"metric": "target_bytes", "value": float(count)})
    if not sums:
        return [], {}
    mean, stderr = weighted_mean(sums)
    return items, {"bits_per_byte": {"value": mean, "stderr": stderr, "higher_is_better": False}}


def read_rows(parquet: Path) -> tuple[list[str], list[Row]]:
    """Row ids and (input_ids, labels) of a tokenised data set; raises `UserError` if unusable."""
    table = read_columns(parquet, ["row", "input_ids", "labels"]).to_pydict()
    rows = list(zip(table["input_ids"], table["labels"], strict=True))
    if not rows:
        raise UserError(f"{parquet}: no rows. Fix: raise heldout.rows and run prepare_data again.")
    for row, (ids, labels) in zip(table["row"], rows, strict=True):
        # The first label is never predicted: the logits before it do not exist.
        if len(ids) != len(labels) or all(label == IGNORED for label in labels[1:]):
            raise UserError(f"{parquet}: row {row} carries no loss. Fix: run prepare_data again.")
    return _item_names(table["row"]), rows


def _item_names(numbers: list[int]) -> list[str]:
    """A name for each row: its number, and 7.2, 7.3 … for further rows of conversation 7."""
    seen: Counter[int] = Counter()
    names = []
    for number in numbers:
        seen[number] += 1
        names.append(str(number) if seen[number] == 1 else f"{number}.{seen[number]}")
    return names


def read_columns(parquet: Path, columns: list[str]) -> "pyarrow.Table":
    """Columns of a tokenised data set; raises `UserError` for a missing or unreadable file."""
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(parquet, columns=columns).select(columns)
    except (OSError, pyarrow.ArrowException, KeyError) as error:
        raise UserError(
            f"{parquet} cannot be read as a tokenised data set ({first_line(error)}). Fix: run prepare_data again."
        ) from None


def token_losses(model: "PreTrainedModel", rows: Sequence[Row], *, batch_size: int) -> list[tuple[float, int]]:
    """Per row the sum of negative log-likelihoods, nats, over its loss tokens, and their number.

    Raises ValueError for a row longer than the model's context.
    """
    config = model.config.get_text_config()
    longest = max(len(ids) for ids, _ in rows)
    if longest > config.max_position_embeddings:
        raise ValueError(
            f"a row of {longest} tokens is longer than the model's context of {config.max_position_embeddings}"
        )
    # Rows of similar length share a pass, which keeps padding small.
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index][0]))
    results: dict[int, tuple[float, int]] = {}
    while order:
        tokens = min(TOKENS_PER_PASS, LOGITS_PER_PASS // config.vocab_size)
        size = min(batch_size, max(1, tokens // len(rows[order[0]][0])))
        batch, order = order[:size], order[size:]
        results |= zip(batch, _forward_pass(model, [rows[index] for index in batch]))
    return [results[index] for index in range(len(rows))]


def _forward_pass(model: "PreTrainedModel", rows: Sequence[Row]) -> list[tuple[float, int]]:
    import torch
    from torch.nn.functional import cross_entropy

    # Padding on the right: causal attention never looks at it, so it cannot change a row's losses.
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids, _ in rows], device=model.device)
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows], device=model.device)
    labels = torch.tensor([[*row, *[IGNORED] * (width - len(row))] for _, row in rows], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        losses = cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none")
        # Summed in float64, so that a long row loses no digits.
        sums, counts = losses.double().sum(dim=1), (labels[:, 1:] != IGNORED).sum(dim=1)
    return list(zip(sums.tolist(), counts.tolist(), strict=True))


def weighted_mean(sums: Sequence[tuple[float, int]]) -> tuple[float, float | None]:
    """Mean over all tokens, or bytes, of rows given as (sum, count), and its standard error.

    The standard error of a single row is None.

    The sampling unit is the row, since tokens of one row are not independent. The mean is a ratio
    of two sums, with the linearised standard error of a ratio (Cochran 1977, Sampling Techniques,
    section 2.11).
    """
    whole, n = sum(count for _, count in sums), len(sums)
    mean = sum(total for total, _ in sums) / whole
    if n < 2:
        return mean, None
    residuals = sum((total - mean * count) ** 2 for total, count in sums)
    return mean, math.sqrt(residuals * n / (n - 1)) / whole
