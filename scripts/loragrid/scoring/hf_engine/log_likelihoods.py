"""Log-likelihoods of the last tokens of many rows, in batches by length, with shared beginnings computed once.

lm-eval's own model computes the whole prompt for every choice of a question, and logits of every
token. The results are the same but for rounding (within 1e-5 in float32).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loragrid.models.batch_sizes import CHOICE_LOGITS_PER_PASS
from loragrid.runtime.progress_lines import ProgressLines
from loragrid.scoring.hf_engine.shared_prefixes import (
    LEAST_TOKENS,
    cached_prefix,
    empty_cache,
    pass_through,
    repeated,
    sees_all,
    worth_sharing,
)
from loragrid.scoring.running_task import NOTHING_KEPT, RunningTask

if TYPE_CHECKING:
    import torch

Row = tuple[list[int], int]  # tokens, and how many of the last ones are scored
# What rows have in common before their last unscored token → a row's tokens but the last → its scored places.
Stems = dict[tuple[int, ...], dict[tuple[int, ...], int]]
Logs = tuple[tuple[tuple[int, ...], int], "torch.Tensor"]


@dataclass(frozen=True)
class _Plan:
    """How rows are computed: the model, rows of a pass, and what all rows begin with (0 tokens: nothing).

    `by_stems`: rows with a common stem compute it once.
    """

    model: Any
    size: int
    prefix: int
    cache: Any
    by_stems: bool

    def begin(self, rows: int) -> tuple[Any, list[list[int]]]:
        """The prefix's cache and mask for so many rows."""
        cache = None if self.cache is None else repeated(self.cache, [0] * rows)
        return cache, [[1] * self.prefix for _ in range(rows)]


def log_likelihoods(
    model: Any, rows: Sequence[Row], *, batch_size: int, running: RunningTask = NOTHING_KEPT
) -> list[tuple[float, bool]]:
    """Per row the log-likelihood, nats, of its scored tokens, and whether each of them is the likeliest.

    `batch_size`: rows of a pass, fewer if they are long. Raises ValueError for a row without a token
    before the scored ones.
    """
    import torch

    if any(scored >= len(ids) for ids, scored in rows):
        raise ValueError("a continuation is as long as the model's context")
    with torch.inference_mode(), running.progress(len(rows), "log-likelihoods") as progress:
        return _log_likelihoods(model, rows, batch_size=batch_size, progress=progress)


def _log_likelihoods(
    model: Any, rows: Sequence[Row], *, batch_size: int, progress: ProgressLines
) -> list[tuple[float, bool]]:
    import torch

    # Rows that differ in their last token alone, such as one-token choices, have the same logits.
    waiting: dict[tuple[tuple[int, ...], int], list[int]] = {}
    stems: Stems = {}
    for index, (ids, scored) in enumerate(rows):
        given = tuple(ids[:-1])
        waiting.setdefault((given, scored), []).append(index)
        # The stem gives no logits: the last token before the scored ones does.
        stems.setdefault(given[: len(given) - scored], {})[given] = scored
    results: dict[int, tuple[float, bool]] = {}
    for (given, scored), logs in _passes(_plan(model, stems, batch_size), stems):
        likeliest = logs.argmax(-1)
        for index in waiting[given, scored]:
            targets = torch.tensor(rows[index][0][-scored:], device=logs.device)
            values = logs.gather(1, targets[:, None])[:, 0]
            results[index] = float(values.sum()), bool((likeliest == targets).all())
            progress.add(items=1)
    return [results[index] for index in range(len(rows))]


def _plan(model: Any, stems: Stems, batch_size: int) -> _Plan:
    longest = max(len(given) for group in stems.values() for given in group)
    positions = CHOICE_LOGITS_PER_PASS // model.config.get_text_config().vocab_size
    size = max(1, min(batch_size, positions // longest))
    if not sees_all(model, longest):
        return _Plan(model, size, 0, None, by_stems=False)
    length = worth_sharing([given for group in stems.values() for given in group])
    length = min(length, *map(len, stems))
    cache = cached_prefix(model, next(iter(stems))[:length]) if length else None
    return _Plan(model, size, length, cache, by_stems=True)


def _passes(plan: _Plan, stems: Stems) -> Iterator[Logs]:
    """((a row's tokens but the last, scored), log-probabilities [scored, vocabulary]) of all rows.

    The longest come first and rows of similar length together, so that a batch has little padding.
    """
    shared, alone = [], []
    for stem, group in stems.items():
        if plan.by_stems and len(group) > 1 and len(stem) - plan.prefix >= LEAST_TOKENS:
            shared.append((stem, list(group.items())))
        else:
            alone += group.items()
    alone.sort(key=lambda row: (-len(row[0]), row[0]))
    for start in range(0, len(alone), plan.size):
        yield from _whole_rows(plan, alone[start : start + plan.size])
    shared.sort(key=lambda one: (-len(one[0]), one[0]))
    for batch in _batches(shared, plan.size):
        yield from _by_stems(plan, batch)


def _batches(shared: list[Any], size: int) -> Iterator[list[Any]]:
    """Stems in groups whose rows fit a pass; a stem of more rows is a group of its own."""
    batch, count = [], 0
    for one in shared:
        if batch and count + len(one[1]) > size:
            yield batch
            batch, count = [], 0
        batch.append(one)
        count += len(one[1])
    if batch:
        yield batch


def _whole_rows(plan: _Plan, batch: list[tuple[tuple[int, ...], int]]) -> Iterator[Logs]:
    """One pass over rows without the prefix."""
    cache, before = plan.begin(len(batch))
    rows = [list(given[plan.prefix :]) for given, _ in batch]
    keep = max(scored for _, scored in batch)
    logits, _ = pass_through(plan.model, rows, cache=cache, before=before, keep=keep)
    for (given, scored), row in zip(batch, logits, strict=True):
        yield (given, scored), row[-scored:].float().log_softmax(-1)


def _by_stems(plan: _Plan, batch: list[Any]) -> Iterator[Logs]:
    """One pass over the stems, and then passes over what differs behind them."""
    cache, before = plan.begin(len(batch))
    cache = empty_cache(plan.model) if cache is None else cache
    heads = [list(stem[plan.prefix :]) for stem, _ in batch]
    _, masks = pass_through(plan.model, heads, cache=cache, before=before, keep=1)
    rows = [(number, given, scored) for number, (_, group) in enumerate(batch) for given, scored in group]
    for start in range(0, len(rows), plan.size):
        part = rows[start : start + plan.size]
        numbers = [number for number, _, _ in part]
        tails = [list(given[len(batch[number][0]) :]) for number, given, _ in part]
        before, keep = [masks[number] for number in numbers], max(map(len, tails))
        logits, _ = pass_through(plan.model, tails, cache=repeated(cache, numbers), before=before, keep=keep)
        for (_, given, scored), row in zip(part, logits, strict=True):
            yield (given, scored), row[-scored:].float().log_softmax(-1)
