"""Answers to the study's rephrased prompts, and to the training prompts they rephrase: text and measures."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError
from loragrid.scoring.generation import AnswerMeter
from loragrid.scoring.heldout_loss import IGNORED, token_losses
from loragrid.scoring.text_measures import distinct, rouge_l

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WORDINGS = ("prompt", "original")
# ASSUME: an answer may take twice the tokens of its reference, and 16 more; who needs more is not answering that prompt.
REFERENCE_FACTOR, REFERENCE_EXTRA = 2, 16


@dataclass(frozen=True)
class Prompt:
    """A training prompt in other words (`prompt`), as it stands in the data (`original`), and the data's answer."""

    id: str
    prompt: str
    original: str
    reference: str


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts from JSONL with the keys id, prompt, original, reference; a bad line is a `UserError` that names it."""
    prompts: dict[str, Prompt] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"scoring.qualitative: {path} cannot be read ({error}): give a JSONL file in UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        prompt = _read_line(line, f"{path}, line {number}")
        if prompt.id in prompts:
            raise UserError(
                f"{path}, line {number}: id {prompt.id!r} was used before: ids name prompts, make it unique"
            )
        prompts[prompt.id] = prompt
    if not prompts:
        raise UserError(f"{path} holds no prompt: give at least one, or set scoring.qualitative to null")
    return list(prompts.values())


def _read_line(line: str, where: str) -> Prompt:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: is no JSON ({error}): write one object per line") from None
    keys = tuple(Prompt.__dataclass_fields__)
    if not isinstance(row, dict) or set(row) != set(keys):
        raise UserError(f"{where}: needs exactly the keys {', '.join(keys)}: add what is missing, drop the rest")
    for key in keys:
        if not isinstance(row[key], str) or not row[key].strip():
            raise UserError(f"{where}: {key} must be text and not empty: write it")
    return Prompt(**row)


def answer_prompts(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Prompt], *, batch_size: int
) -> list[dict[str, Any]]:
    """Greedy answers to both wordings of each prompt, in the model's chat template.

    One dict per prompt: id, reference, reference_tokens, and per wording a dict with the text (`question`), `answer`,
    `new_tokens`, `stopped`, `repetition`, `special_tokens`, `similarity` (ROUGE-L F1 with the reference),
    `distinct_2` (of words), `reference_log_likelihood` (mean per token, nats) and `error`. A wording that leaves no room in the
    model's context has an `error` and None for the measures.
    """
    context = model.config.get_text_config().max_position_embeddings
    references = [tokenizer(p.reference, add_special_tokens=False).input_ids for p in prompts]
    asked: list[dict[str, Any]] = []
    for index, (prompt, reference) in enumerate(zip(prompts, references, strict=True)):
        cap = REFERENCE_FACTOR * len(reference) + REFERENCE_EXTRA
        for wording in WORDINGS:
            ids = render(tokenizer, getattr(prompt, wording))
            cap_here = min(cap, context - len(ids))
            asked.append({"index": index, "wording": wording, "ids": ids, "reference": reference, "cap": cap_here})
    fitting = [request for request in asked if request["cap"] > 0]
    _generate(model, tokenizer, fitting, batch_size=batch_size)
    _reference_likelihood(model, fitting, context=context, batch_size=batch_size)
    meter = AnswerMeter(model, tokenizer)
    rows = [
        {"id": prompt.id, "reference": prompt.reference, "reference_tokens": len(reference)}
        for prompt, reference in zip(prompts, references, strict=True)
    ]
    for request in asked:
        prompt = prompts[request["index"]]
        rows[request["index"]][request["wording"]] = _describe(request, prompt, meter, context=context)
    return rows


def render(tokenizer: "PreTrainedTokenizerBase", question: str) -> list[int]:
    """A single user turn as token ids, ending where the answer begins. The template writes its own special tokens."""
    chat = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False).input_ids


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per wording the means over all answers, and `distinct_2` over all of them together (their variety)."""
    summary: dict[str, Any] = {}
    for wording in WORDINGS:
        answers = [row[wording] for row in rows if row[wording]["error"] is None]
        names = [name for name, value in answers[0].items() if isinstance(value, int | float)] if answers else []
        means = {name: _mean([a[name] for a in answers if a[name] is not None]) for name in names}
        variety = distinct(answer["answer"].split() for answer in answers)
        summary[wording] = means | {"distinct_2": variety, "answers": len(answers)}
    return summary


def _generate(model: Any, tokenizer: Any, requests: list[dict[str, Any]], *, batch_size: int) -> None:
    """Put the generated ids of each request under "tokens". Requests of like cap share a batch, padded on the left."""
    import torch

    pad = tokenizer.pad_token_id
    order = sorted(requests, key=lambda request: (-request["cap"], -len(request["ids"])))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        width = max(len(request["ids"]) for request in batch)
        ids = [[pad] * (width - len(request["ids"])) + request["ids"] for request in batch]
        mask = [[0] * (width - len(request["ids"])) + [1] * len(request["ids"]) for request in batch]
        with torch.inference_mode():
            out = model.generate(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                max_new_tokens=max(request["cap"] for request in batch),
                do_sample=False,
                pad_token_id=pad,
            )
        for request, row in zip(batch, out[:, width:].tolist(), strict=True):
            request["tokens"] = row[: request["cap"]]


def _reference_likelihood(model: Any, requests: list[dict[str, Any]], *, context: int, batch_size: int) -> None:
    """Put the mean log-likelihood of the reference after each prompt, nats per token, under "likelihood", where it fits."""
    fitting = [r for r in requests if r["reference"] and len(r["ids"]) + len(r["reference"]) <= context]
    rows = [(r["ids"] + r["reference"], [IGNORED] * len(r["ids"]) + r["reference"]) for r in fitting]
    losses = token_losses(model, rows, batch_size=batch_size) if rows else []
    for request, (total, count) in zip(fitting, losses, strict=True):
        request["likelihood"] = -total / count


def _describe(request: dict[str, Any], prompt: Prompt, meter: AnswerMeter, *, context: int) -> dict[str, Any]:
    question = getattr(prompt, request["wording"])
    if "tokens" not in request:
        error = f"the prompt's {len(request['ids'])} tokens leave no room in the model's context of {context}"
        names = "answer new_tokens stopped repetition special_tokens similarity distinct_2 reference_log_likelihood"
        return {"question": question, "error": error} | dict.fromkeys(names.split())
    tokens, evidence = meter.measure(request["tokens"], stops=[])
    answer = meter.tokenizer.decode(tokens, skip_special_tokens=True)
    return {
        "question": question,
        "error": None,
        "answer": answer,
        "new_tokens": evidence.new_tokens,
        "stopped": evidence.stopped,
        "repetition": evidence.repetition,
        "special_tokens": evidence.special_tokens,
        "similarity": rouge_l(answer, prompt.reference),
        "distinct_2": distinct([answer.split()]),
        "reference_log_likelihood": request.get("likelihood"),
    }


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
