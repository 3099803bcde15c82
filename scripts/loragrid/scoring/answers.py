"""Greedy answers to the study's prompts, rephrased and original, with their measures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from loragrid.models.chat_templates.end_tokens import end_tokens
from loragrid.models.passes.row_losses import IGNORED, Row, RowLoss
from loragrid.scoring.generation import AnswerMeter
from loragrid.scoring.heldout.losses import reported_losses
from loragrid.scoring.hf_engine.greedy_decoding import Ends, Request, all_answers, decodes_greedily
from loragrid.scoring.prompts import Prompt, prompt_ids, reference_ids
from loragrid.scoring.running_task import NOTHING_KEPT, RunningTask
from loragrid.scoring.text_measures import distinct, rouge_l

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WORDINGS = ("prompt", "original")
# ASSUME: an answer may have twice the tokens of its reference plus 16; a longer one does not answer
# that prompt.
REFERENCE_FACTOR, REFERENCE_EXTRA = 2, 16
MEASURES = (
    "answer",
    "new_tokens",
    "stopped",
    "repetition",
    "special_tokens",
    "similarity",
    "distinct_2",
    "reference_log_likelihood",
)


@dataclass(frozen=True)
class Answering:
    """How a model of any engine answers.

    `context`: tokens; `generate`: the new tokens of each (prompt's ids, most new tokens), greedily;
    `row_losses`: as of `loragrid.models.passes`.
    """

    meter: AnswerMeter
    context: int
    generate: Callable[[list[tuple[list[int], int]]], list[list[int]]]
    row_losses: Callable[[list[Row]], list[RowLoss]]


def answer_prompts(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Prompt],
    *,
    batch_size: int,
    running: RunningTask = NOTHING_KEPT,
) -> list[dict[str, Any]]:
    """`ask_prompts` of a model of transformers."""
    answering = Answering(
        AnswerMeter(model, tokenizer),
        model.config.get_text_config().max_position_embeddings,
        partial(generate_greedily, model, tokenizer, batch_size=batch_size, running=running),
        partial(reported_losses, model, running=running),
    )
    return ask_prompts(answering, prompts)


def ask_prompts(answering: Answering, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Greedy answers to both wordings of each prompt, in the model's chat template.

    One dict per prompt: id, reference, reference_tokens, and per wording a dict with the text
    (`question`), `answer`, `new_tokens`, `stopped`, `repetition`, `special_tokens`, `similarity`
    (ROUGE-L F1 with the reference), `distinct_2` (of words), `reference_log_likelihood` (mean per
    token, nats) and `error`. A wording that leaves no room in the model's context has an `error`
    and None for the measures.
    """
    tokenizer, context = answering.meter.tokenizer, answering.context
    rows, requests = [], []
    for prompt in prompts:
        reference = reference_ids(tokenizer, prompt.reference)
        rows.append({"id": prompt.id, "reference": prompt.reference, "reference_tokens": len(reference)})
        limit = REFERENCE_FACTOR * len(reference) + REFERENCE_EXTRA
        for wording in WORDINGS:
            ids = prompt_ids(tokenizer, getattr(prompt, wording))
            request = {"prompt": prompt, "wording": wording, "row": rows[-1], "ids": ids, "reference": reference}
            requests.append(request | {"limit": min(limit, context - len(ids))})
    fitting = [request for request in requests if request["limit"] > 0]
    answers = answering.generate([(request["ids"], request["limit"]) for request in fitting])
    for request, tokens in zip(fitting, answers, strict=True):
        request["tokens"] = tokens[: request["limit"]]
    _reference_likelihood(answering, fitting)
    for request in requests:
        request["row"][request["wording"]] = _describe(request, answering.meter, context=context)
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per wording the means over all answers, and `distinct_2` over all of them together."""
    summary: dict[str, Any] = {}
    for wording in WORDINGS:
        answers = [row[wording] for row in rows if row[wording]["error"] is None]
        names = []
        if answers:
            names = [name for name, value in answers[0].items() if isinstance(value, int | float)]
        means = {name: _mean([a[name] for a in answers if a[name] is not None]) for name in names}
        variety = distinct(answer["answer"].split() for answer in answers)
        summary[wording] = means | {"distinct_2": variety, "answers": len(answers)}
    return summary


def generate_greedily(
    model: Any, tokenizer: Any, requests: list[tuple[list[int], int]], *, batch_size: int, running: RunningTask
) -> list[list[int]]:
    """The new tokens of each (prompt's ids, most new tokens); some rows have more, or pads after their end."""
    ends = end_tokens(model, tokenizer)
    if requests and decodes_greedily(model):
        asked = [Request(ids, most) for ids, most in requests]
        return all_answers(model, asked, ends=Ends(frozenset(ends)), batch_size=batch_size, running=running)
    found: list[list[int]] = [[] for _ in requests]
    # A batch runs until its longest limit, so requests with similar limits share a batch.
    order = sorted(range(len(requests)), key=lambda index: (-requests[index][1], -len(requests[index][0])))
    with running.progress(len(requests), "answers") as progress:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            rows = _kept_or_generated(model, tokenizer, [requests[index] for index in batch], ends, running)
            for index, row in zip(batch, rows, strict=True):
                found[index] = row
            progress.add(items=len(batch))
    return found


def _kept_or_generated(
    model: Any, tokenizer: Any, requests: list[tuple[list[int], int]], ends: Sequence[int], running: RunningTask
) -> list[list[int]]:
    """The answers of a batch: those that an interrupted job has kept, or new ones."""
    # The name holds the whole batch, because the padding depends on it.
    names = [[place, requests, list(ends)] for place in range(len(requests))]
    kept = [running.kept.get(name) for name in names]
    if all(tokens is not None for tokens in kept):
        return kept
    rows = _generate_batch(model, tokenizer, requests, ends)
    for name, tokens in zip(names, rows, strict=True):
        running.kept.add(name, tokens)
    return rows


def _generate_batch(
    model: Any, tokenizer: Any, requests: list[tuple[list[int], int]], ends: Sequence[int]
) -> list[list[int]]:
    """The new tokens of each request by `generate` of transformers."""
    import torch

    pad = tokenizer.pad_token_id
    # Padding on the left: generation continues each row from its last position.
    width = max(len(ids) for ids, _ in requests)
    padded = [[pad] * (width - len(ids)) + ids for ids, _ in requests]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids, _ in requests]
    with torch.inference_mode():
        out = model.generate(
            input_ids=torch.tensor(padded, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=max(most for _, most in requests),
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=list(ends),
        )
    return out[:, width:].tolist()


def _reference_likelihood(answering: Answering, requests: list[dict[str, Any]]) -> None:
    """Put the reference's mean log-likelihood per token, nats, after each prompt under "likelihood".

    Requests whose prompt and reference exceed the context are left out.
    """
    fitting = [r for r in requests if r["reference"] and len(r["ids"]) + len(r["reference"]) <= answering.context]
    if not fitting:
        return
    rows = [(r["ids"] + r["reference"], [IGNORED] * len(r["ids"]) + r["reference"]) for r in fitting]
    losses = answering.row_losses(rows)
    for request, (total, count) in zip(fitting, losses, strict=True):
        request["likelihood"] = -total / count


def _describe(request: dict[str, Any], meter: AnswerMeter, *, context: int) -> dict[str, Any]:
    prompt = request["prompt"]
    question = getattr(prompt, request["wording"])
    if "tokens" not in request:
        error = f"the prompt's {len(request['ids'])} tokens leave no room in the model's context of {context}"
        return {"question": question, "error": error} | dict.fromkeys(MEASURES)
    tokens, measures = meter.measure(request["tokens"], stops=[])
    answer = meter.tokenizer.decode(tokens, skip_special_tokens=True)
    return {
        "question": question,
        "error": None,
        "answer": answer,
        "new_tokens": measures.new_tokens,
        "stopped": measures.stopped,
        "repetition": measures.repetition,
        "special_tokens": measures.special_tokens,
        "similarity": rouge_l(answer, prompt.reference),
        "distinct_2": distinct([answer.split()]),
        "reference_log_likelihood": request.get("likelihood"),
    }


def _mean(values: Sequence[float]) -> float | None:
    if not values:
        return None
    return math.fsum(values) / len(values)
