"""Greedy answers of many prompts at once on a CPU, where a row that has ended leaves the batch.

`generate` of transformers computes every row until the longest has ended. On a CPU that is half of the work, since a
row costs as much as any other; on a GPU a step costs the same for one row as for a hundred.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# A smaller batch is made when this share of the rows has ended: each costs a copy of the whole cache.
ENDED_SHARE = 0.1
# Generation settings without effect on a greedy answer; with any other, `generate` has to answer.
HARMLESS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config"),
    *("output_attentions", "output_hidden_states", "use_cache", "cache_implementation"),
    *("do_sample", "temperature", "top_k", "top_p", "max_length", "max_new_tokens"),
}


def decodes_greedily(model: "PreTrainedModel") -> bool:
    """Whether `greedy_answers` gives what `generate` would: a model on the CPU whose settings change no logits."""
    changed = set(model.generation_config.to_diff_dict())
    return model.device.type == "cpu" and changed <= HARMLESS and not getattr(model, "_is_stateful", False)


def greedy_answers(
    model: "PreTrainedModel",
    ids: "torch.Tensor",
    mask: "torch.Tensor",
    *,
    max_new_tokens: int,
    end_ids: set[int],
    pad: int,
) -> "torch.Tensor":
    """The most likely continuations: int64 tensor [rows, prompt and new tokens], padded with `pad` after an end token.

    `ids` and `mask`: [rows, prompt tokens], padded on the left. As `generate(do_sample=False)`.
    """
    import torch
    from transformers import DynamicCache

    cache, ends = DynamicCache(config=model.config.get_text_config()), torch.tensor(sorted(end_ids))
    answers = torch.full((len(ids), max_new_tokens), pad)
    # The rows still in the batch, as indices into `answers`, and which of them have ended.
    rows, ended = torch.arange(len(ids)), torch.zeros(len(ids), dtype=torch.bool)
    positions, inputs, length = (mask.cumsum(-1) - 1).clamp(min=0), ids, 0
    with torch.inference_mode():
        while length < max_new_tokens:
            logits = _last_logits(model, inputs, mask, positions, cache)
            chosen = logits.argmax(-1).masked_fill(ended, pad)
            answers[rows, length] = chosen
            length += 1
            ended |= torch.isin(chosen, ends)
            if ended.all():
                break
            if ended.float().mean() >= ENDED_SHARE:
                kept = (~ended).nonzero()[:, 0]
                cache.batch_select_indices(kept)
                rows, chosen, mask, positions, ended = (part[kept] for part in (rows, chosen, mask, positions, ended))
            inputs, positions = chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return torch.cat([ids, answers[:, :length]], dim=1)


def _last_logits(model: Any, inputs: Any, mask: Any, positions: Any, cache: Any) -> Any:
    # Without this option the first pass computes logits for every token of the prompts.
    options = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
    output = model(
        input_ids=inputs,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        **options,
    )
    return output.logits[:, -1].float()
