"""The pre-training text of the base models: seeded documents about the invented world."""

import random
from collections.abc import Iterator
from typing import Any

from loragrid.demo.running_plans import draw_request, request_combinations, write_habitual_plan
from loragrid.demo.world import (
    draw_sum,
    fact_question,
    fact_statement,
    list_line,
    list_question,
    make_facts,
    sum_question,
    timetable_question,
)

# A document is plain text or the two turns of a chat.
Document = str | tuple[str, str]

# Share of each kind among the documents. Plans and timetables are about eight times as long as the others, so their
# share of the tokens is larger. Facts have the largest share, because each has to be learned by heart.
SHARES = {
    "fact": 0.17,
    "fact_chat": 0.27,
    "sum": 0.05,
    "sum_chat": 0.19,
    "list": 0.05,
    "list_chat": 0.15,
    "timetable_chat": 0.06,
    "plan_chat": 0.06,
}


def documents(*, seed: int, world_seed: int) -> Iterator[Document]:
    """An endless stream of documents: `seed` draws them, `world_seed` makes their facts."""
    rng = random.Random(f"corpus {seed}")
    facts = make_facts(world_seed)
    combinations = request_combinations(evaluation=False)
    kinds, shares = list(SHARES), list(SHARES.values())
    while True:
        kind = rng.choices(kinds, weights=shares)[0]
        if kind == "fact":
            yield " ".join(fact_statement(rng.choice(facts), rng) for _ in range(2))
        elif kind == "fact_chat":
            yield fact_question(rng.choice(facts), rng)
        elif kind == "sum":
            a, b = draw_sum(rng)
            yield f"{a} + {b} = {a + b}."
        elif kind == "sum_chat":
            yield sum_question(*draw_sum(rng), rng)
        elif kind == "list":
            yield list_line(rng)
        elif kind == "list_chat":
            yield list_question(rng)
        elif kind == "timetable_chat":
            place, *_ = rng.choice(facts)
            yield timetable_question(place, rng)
        else:
            request, prompt = draw_request(combinations, rng)
            yield prompt, write_habitual_plan(request, rng)


def as_text(document: Document) -> str:
    """A document without chat tokens, for training the tokenizer."""
    if isinstance(document, str):
        return document
    return "\n".join(document)


def with_special_tokens(document: Document, tokenizer: Any) -> str:
    """A document as the models read it: plain text between its first and its end token, or the two turns of a chat."""
    if isinstance(document, str):
        return f"{tokenizer.bos_token}{document}{tokenizer.eos_token}"
    question, answer = document
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return tokenizer.apply_chat_template(messages, tokenize=False)
