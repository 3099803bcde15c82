"""Held-out loss per row, on the tokens and labels that training uses."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError, first_line
from loragrid.models.attached_adapters import merged
from loragrid.models.passes.padding_free import without_padding
from loragrid.models.passes.row_losses import IGNORED, Row, RowLoss, measure_passes, network_of
from loragrid.runtime.atomic_files import sha256_json
from loragrid.scoring.heldout.target_texts import target_text
from loragrid.scoring.running_task import NOTHING_KEPT, RunningTask
from loragrid.scoring.task_results import TaskResult

if TYPE_CHECKING:
    import pyarrow
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

NATS_PER_BIT = math.log(2)


def measure(model: "PreTrainedModel", parquet: Path, running: RunningTask = NOTHING_KEPT) -> list[RowLoss]:
    """The loss of each row of `heldout.parquet` (columns row, input_ids, labels), as training measures it.

    `scoring.limit` does not apply. Raises as `read_rows` and `row_losses` do.
    """
    _, rows = read_rows(parquet)
    with merged(model), without_padding(network_of(model)):
        return reported_losses(model, rows, running)


def reported_losses(model: "PreTrainedModel", rows: Sequence[Row], running: RunningTask) -> list[RowLoss]:
    """`row_losses` with lines that say how far they are."""
    found: dict[int, RowLoss] = {}
    with running.progress(len(rows), "rows", tokens=sum(len(ids) for ids, _ in rows)) as progress:
        for measured in measure_passes(model, rows):
            found |= measured
            progress.add(items=len(measured), tokens=sum(len(rows[place][0]) for place in measured))
    return [found[place] for place in range(len(rows))]


def loss_result(tokenizer: "PreTrainedTokenizerFast", parquet: Path, sums: Sequence[RowLoss]) -> TaskResult:
    """The task's result from the losses of the file's rows, in their order.

    Metrics: `loss` (nats per loss token, weighted by tokens), `perplexity` and `bits_per_byte` (see
    `_bits_per_byte`). Items: each row's mean `loss` and its weight, `loss_tokens`, and its
    `bits_per_byte` and their weight, `target_bytes`. Raises as `read_rows` does.
    """
    ids, rows = read_rows(parquet)
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


def _loss_metrics(sums: Sequence[RowLoss]) -> dict[str, dict[str, Any]]:
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
