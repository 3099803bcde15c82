"""Greedy answers of many prompts at once: a row that has ended leaves the batch, and the next prompt takes its place.

`generate` of transformers computes every row until the longest of its batch has ended, and what all prompts begin with
once for each of them. It looks for stop texts after every token, and goes on with a row that has ended by one.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loragrid.models.batch_sizes import answers_on_cpu
from loragrid.models.passes.row_losses import POSITIONS_PER_PASS
from loragrid.scoring.hf_engine.shared_prefixes import passes_with_cache, worth_sharing
from loragrid.scoring.hf_engine.slot_attention import slots_in_use, supports_slots
from loragrid.scoring.hf_engine.slot_cache import SlotCache
from loragrid.scoring.running_task import RunningTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Prompts are read when this share of the slots is free: reading several costs little more than reading one.
FREE_SHARE = 0.1
# Stop texts are looked for once in so many tokens: a row goes on for fewer, and most decoding is saved.
TOKENS_PER_LOOK = 8
# Generation settings without effect on a greedy answer; with any other, `generate` has to answer.
HARMLESS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config"),
    *("output_attentions", "output_hidden_states", "use_cache", "cache_implementation"),
    *("do_sample", "temperature", "top_k", "top_p", "max_length", "max_new_tokens"),
}


def decodes_greedily(model: "PreTrainedModel") -> bool:
    """Whether `greedy_answers` gives what `generate` would: no setting of the model changes logits."""
    changed = set(model.generation_config.to_diff_dict())
    return changed <= HARMLESS and passes_with_cache(model) and supports_slots(model)


@dataclass(frozen=True)
class Request:
    """A prompt's token ids, and the most new tokens of its answer (at least 1)."""

    ids: Sequence[int]
    most: int


@dataclass(frozen=True)
class Ends:
    """What ends an answer: token ids, and texts that the tokenizer finds in it."""

    ids: frozenset[int]
    texts: tuple[str, ...] = ()
    tokenizer: Any = None

    def has_text(self, tokens: list[int]) -> bool:
        """Whether a stop text ends in the last `TOKENS_PER_LOOK` of an answer's tokens."""
        # No token is shorter than a byte.
        longest = max(len(text.encode()) for text in self.texts)
        tail = self.tokenizer.decode(tokens[-(longest + TOKENS_PER_LOOK) :], skip_special_tokens=False)
        if not any(text in tail for text in self.texts):
            return False
        # The first tokens of a text may decode to something else in front of others.
        whole = self.tokenizer.decode(tokens, skip_special_tokens=False)
        return any(text in whole for text in self.texts)


@dataclass
class _Row:
    """An answer in progress: the place of its request, the most tokens it may have, and its tokens so far."""

    place: int
    most: int
    tokens: list[int] = field(default_factory=list)

    def has_ended(self, ends: Ends) -> bool:
        count = len(self.tokens)
        if self.tokens[-1] in ends.ids or count == self.most:
            return True
        return bool(ends.texts) and count % TOKENS_PER_LOOK == 0 and ends.has_text(self.tokens)


def all_answers(
    model: "PreTrainedModel", requests: Sequence[Request], *, ends: Ends, batch_size: int, running: RunningTask
) -> list[list[int]]:
    """The answers of `greedy_answers` in the order of the requests, but for those that an interrupted job has kept."""
    names = [[list(request.ids), request.most, sorted(ends.ids), ends.texts] for request in requests]
    kept = {place: tokens for place, name in enumerate(names) if (tokens := running.kept.get(name)) is not None}
    found = dict(kept)
    rest = sum(request.most for place, request in enumerate(requests) if place not in kept)
    with running.progress(len(requests), "answers", tokens=rest, at_most=True) as progress:
        progress.add(items=len(kept))
        answering = greedy_answers(
            model,
            requests,
            ends=ends,
            batch_size=batch_size,
            known=kept,
            on_step=lambda rows: progress.add(tokens=rows),
        )
        for place, tokens in answering:
            running.kept.add(names[place], tokens)
            found[place] = tokens
            progress.add(items=1, unused=requests[place].most - len(tokens))
    return [found[place] for place in range(len(requests))]


def greedy_answers(
    model: "PreTrainedModel",
    requests: Sequence[Request],
    *,
    ends: Ends,
    batch_size: int,
    known: Collection[int] = (),
    on_step: Callable[[int], None] = lambda rows: None,
) -> Iterator[tuple[int, list[int]]]:
    """The most likely continuations, as `generate(do_sample=False)`: (place of a request, its new tokens) as each ends.

    The tokens include the end token; an answer with a stop text goes on for up to `TOKENS_PER_LOOK`
    tokens. `batch_size`: rows of a step, on a CPU at least so many; `known`: places of requests that
    need no answer; `on_step` gets the number of rows that were given a token.
    """
    # Long answers first: a step of the last rows alone costs as much as one of several.
    order = sorted(range(len(requests)), key=lambda at: (-requests[at].most, -len(requests[at].ids)))
    waiting, rows = deque(place for place in order if place not in known), []
    if not waiting:
        return
    # Of all requests: the arithmetic, and so the answers, are the same whichever are known.
    shared = _shared_tokens(requests)
    capacity = max(len(request.ids) - shared + request.most for request in requests)
    slots = min(len(waiting), rows_of_a_step(model, batch_size, capacity))
    cache = SlotCache(model, rows=slots, capacity=capacity)
    with slots_in_use(model):
        if shared:
            cache.read_prefix(requests[0].ids[:shared])
        while waiting or rows:
            if slots - len(rows) >= max(1, FREE_SHARE * slots) or not rows:
                for batch in _passes(model, waiting, requests, most=slots - len(rows)):
                    logits = cache.read([requests[place].ids[shared:] for place in batch])
                    new = [_Row(place, requests[place].most) for place in batch]
                    _add_tokens(new, logits)
                    on_step(len(new))
                    rows += new
            for slot in reversed(range(len(rows))):
                if rows[slot].has_ended(ends):
                    row, rows[slot] = rows[slot], rows[-1]
                    rows.pop()
                    cache.drop(slot)
                    yield row.place, row.tokens
            if rows:
                _add_tokens(rows, cache.write([row.tokens[-1] for row in rows]))
                on_step(len(rows))


def rows_of_a_step(model: Any, batch_size: int, capacity: int) -> int:
    """How many answers of up to `capacity` tokens are written together."""
    if model.device.type != "cpu":
        return batch_size
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    row_bytes = capacity * 2 * config.num_hidden_layers * heads * head_size * model.dtype.itemsize
    return answers_on_cpu(batch_size, row_bytes=row_bytes)


def _shared_tokens(requests: Sequence[Request]) -> int:
    """How many tokens all prompts begin with and are read once; each keeps a token of its own, which gives logits."""
    prompts = [request.ids for request in requests]
    return min(worth_sharing(prompts), *(len(prompt) - 1 for prompt in prompts))


def _passes(model: Any, waiting: deque[int], requests: Sequence[Request], *, most: int) -> Iterator[list[int]]:
    """Takes up to `most` of the waiting requests, in groups whose prompts are read in one pass."""
    positions = POSITIONS_PER_PASS[model.device.type]
    batch, count = [], 0
    while waiting and most:
        length = len(requests[waiting[0]].ids)
        if batch and count + length > positions:
            yield batch
            batch, count = [], 0
        batch.append(waiting.popleft())
        count, most = count + length, most - 1
    if batch:
        yield batch


def _add_tokens(rows: Sequence[_Row], logits: Any) -> None:
    """Add the likeliest token to each row; `logits`: [rows, vocabulary]."""
    for row, token in zip(rows, logits.argmax(-1).tolist(), strict=True):
        row.tokens.append(token)
