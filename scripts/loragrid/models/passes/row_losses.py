"""Losses of rows of tokens without gradients, each row's own, as training and scoring measure them.

Rows of like length share a pass, and logits are computed only where a label carries loss. With the
same model, rows and device the losses are equal bit for bit, whoever measures.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from loragrid.models.batch_sizes import LOGITS_PER_PASS
from loragrid.models.passes.padding_free import is_padding_free

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

IGNORED = -100  # the label without loss, as in torch's cross_entropy
# Small enough for the caches of a CPU, large enough to fill a GPU.
POSITIONS_PER_PASS = {"cpu": 1024, "cuda": 8192}

Row = tuple[Sequence[int], Sequence[int]]  # input_ids, labels


class RowLoss(NamedTuple):
    """A row's negative log-likelihood in nats, summed over its loss tokens, and their number."""

    nats: float
    tokens: int


def row_losses(model: "PreTrainedModel", rows: Sequence[Row]) -> list[RowLoss]:
    """The loss of each row; raises ValueError for one longer than the model's context."""
    found: dict[int, RowLoss] = {}
    for measured in measure_passes(model, rows):
        found |= measured
    return [found[place] for place in range(len(rows))]


def measure_passes(model: "PreTrainedModel", rows: Sequence[Row]) -> Iterator[dict[int, RowLoss]]:
    """The losses by the rows' places, pass after pass, so that a caller may stop in between."""
    config = model.config.get_text_config()
    longest = max(len(ids) for ids, _ in rows)
    if longest > config.max_position_embeddings:
        raise ValueError(
            f"a row of {longest} tokens is longer than the model's context of {config.max_position_embeddings}"
        )
    positions = largest_pass(model.device.type, vocabulary=config.vocab_size)
    measure = _side_by_side if is_padding_free(network_of(model)) else _padded
    for places in passes([len(ids) for ids, _ in rows], positions):
        yield dict(zip(places, measure(model, [rows[place] for place in places]), strict=True))


def largest_pass(device: str, *, vocabulary: int) -> int:
    """The most positions of a pass of several rows: as many as are fast, and as their logits leave room for."""
    # 8,192 positions of Gemma's 262,144 words are 8 GiB in float32, more than a training step.
    return min(POSITIONS_PER_PASS[device], LOGITS_PER_PASS // vocabulary)


def network_of(model: Any) -> Any:
    """The transformers model, without the wrapper of PEFT's adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def passes(lengths: Sequence[int], positions: int) -> Iterator[list[int]]:
    """The places of rows that share a pass, shortest first; a pass has at most `positions`, or one row."""
    places: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        # The newest row is the longest of its pass, and all may be padded to it.
        if places and lengths[place] * (len(places) + 1) > positions:
            yield places
            places = []
        places.append(place)
    if places:
        yield places


def _side_by_side(model: "PreTrainedModel", rows: Sequence[Row]) -> list[RowLoss]:
    """Losses of rows in one long row without padding, for a model whose attention tells them apart."""
    import torch

    ids, labels, positions, owners = [], [], [], []
    for number, (row_ids, row_labels) in enumerate(rows):
        ids += row_ids
        # The first label of a row is never predicted: the token before it is another row's.
        labels += [IGNORED, *row_labels[1:]]
        positions += range(len(row_ids))
        owners += [number] * len(row_ids)
    device = model.device
    targets = torch.tensor(labels[1:], device=device)
    places = (targets != IGNORED).nonzero()[:, 0]
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            logits_to_keep=places,
        ).logits[0]
        losses = _cross_entropy(logits, targets[places])
    return _sums(losses, torch.tensor(owners[1:], device=device)[places], rows=len(rows))


def _padded(model: "PreTrainedModel", rows: Sequence[Row]) -> list[RowLoss]:
    """Losses of rows that are padded to the longest."""
    import torch

    # Padding on the right: causal attention never looks at it, so it cannot change a row's losses.
    width = max(len(ids) for ids, _ in rows)
    filled = [width - len(ids) for ids, _ in rows]
    ids = torch.tensor([[*row, *[0] * more] for (row, _), more in zip(rows, filled, strict=True)])
    mask = torch.tensor([[1] * (width - more) + [0] * more for more in filled])
    labels = torch.tensor([[*row, *[IGNORED] * more] for (_, row), more in zip(rows, filled, strict=True)])
    targets = labels[:, 1:].to(model.device)
    # Columns where some row has loss; the others' logits would be computed and thrown away.
    columns = (targets != IGNORED).any(dim=0).nonzero()[:, 0]
    with torch.no_grad():
        logits = model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            use_cache=False,
            logits_to_keep=columns,
        ).logits
        row, column = (targets[:, columns] != IGNORED).nonzero(as_tuple=True)
        losses = _cross_entropy(logits[row, column], targets[:, columns][row, column])
    return _sums(losses, row, rows=len(rows))


def _cross_entropy(logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits.float(), targets, reduction="none")


def _sums(losses: "torch.Tensor", owners: "torch.Tensor", *, rows: int) -> list[RowLoss]:
    """The losses summed by row, in float64, so that a long row loses no digits."""
    import torch

    nats = torch.zeros(rows, dtype=torch.float64, device=losses.device).index_add_(0, owners, losses.double())
    tokens = torch.bincount(owners, minlength=rows)
    return [RowLoss(*pair) for pair in zip(nats.tolist(), tokens.tolist(), strict=True)]
