"""Greedy answers of many prompts at once, in which a row that has ended leaves the batch.

`generate` of transformers computes every row until the longest has ended, which on a CPU is half of the work, and what
all prompts begin with once for each of them. It looks for stop texts after every token, and goes on with a row that
has ended by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loragrid.scoring.hf_engine.shared_prefixes import (
    cached_prefix,
    empty_cache,
    pass_through,
    passes_with_cache,
    repeated,
    sees_all,
    worth_sharing,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# A smaller batch is made when this share of the rows has ended: each costs a copy of the whole cache.
ENDED_SHARE = 0.1
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
    return changed <= HARMLESS and passes_with_cache(model)


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


def greedy_answers(
    model: "PreTrainedModel", ids: "torch.Tensor", mask: "torch.Tensor", *, max_new_tokens: int, ends: Ends, pad: int
) -> "torch.Tensor":
    """The most likely continuations: int64 tensor [rows, prompt and new tokens], padded with `pad` after an end token.

    `ids` and `mask`: [rows, prompt tokens], padded on the left. As `generate(do_sample=False)`, but
    that a row with a stop text goes on for up to `TOKENS_PER_LOOK` tokens, and is padded then.
    """
    import torch

    prompts = [row[kept].tolist() for row, kept in zip(ids, mask.bool())]
    answers = torch.full((len(ids), max_new_tokens), pad, device=ids.device)
    end_ids = torch.tensor(sorted(ends.ids), device=ids.device)
    # The rows still in the batch, as indices into `answers`, and which of them have ended.
    rows = torch.arange(len(ids), device=ids.device)
    ended, length = torch.zeros_like(rows, dtype=torch.bool), 0
    with torch.inference_mode():
        logits, cache, mask = _read_prompts(model, prompts, max_new_tokens)
        while True:
            chosen = logits.argmax(-1).masked_fill(ended, pad)
            answers[rows, length] = chosen
            length += 1
            ended |= torch.isin(chosen, end_ids)
            if ends.texts and length % TOKENS_PER_LOOK == 0:
                found = [ends.has_text(answers[row, :length].tolist()) for row in rows.tolist()]
                ended |= torch.tensor(found, device=ids.device)
            if length == max_new_tokens or ended.all():
                break
            if ended.float().mean() >= ENDED_SHARE:
                kept = (~ended).nonzero()[:, 0]
                cache.batch_select_indices(kept)
                rows, chosen, mask, ended = (part[kept] for part in (rows, chosen, mask, ended))
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = _next_logits(model, chosen[:, None], mask, cache)
    return torch.cat([ids, answers[:, :length]], dim=1)


def _read_prompts(model: Any, prompts: Sequence[list[int]], max_new_tokens: int) -> tuple[Any, Any, "torch.Tensor"]:
    """Logits [rows, vocabulary] after the prompts, their cache, and the mask of its places."""
    import torch

    shared = 0
    if sees_all(model, max(map(len, prompts)) + max_new_tokens):
        # Each row has at least one token of its own, which gives the logits.
        shared = min(worth_sharing(prompts), *(len(prompt) - 1 for prompt in prompts))
    if shared:
        cache = repeated(cached_prefix(model, prompts[0][:shared]), [0] * len(prompts))
    else:
        cache = empty_cache(model)
    rests, before = [prompt[shared:] for prompt in prompts], [[1] * shared for _ in prompts]
    logits, masks = pass_through(model, rests, cache=cache, before=before, keep=1)
    return logits[:, -1].float(), cache, torch.tensor(masks, device=logits.device)


def _next_logits(model: Any, chosen: Any, mask: Any, cache: Any) -> Any:
    output = model(
        input_ids=chosen,
        attention_mask=mask,
        position_ids=mask.sum(-1, keepdim=True) - 1,
        past_key_values=cache,
        use_cache=True,
    )
    return output.logits[:, -1].float()
