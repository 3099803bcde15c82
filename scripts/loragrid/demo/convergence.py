"""Held-out losses measured during the pre-training of a base model, and whether they show that it has converged."""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from loragrid.demo.corpus import Document, documents, with_special_tokens
from loragrid.demo.world import draw_sum, fact_question, list_question, make_facts, sum_question

# No document of this seed is trained on. Short ones, such as a question about a fact, recur all the same.
HELDOUT_SEED = 2
HELDOUT_DOCUMENTS = 300
QUESTIONS = 150
MEASUREMENTS = 20
# A base has converged when the last fifth of its steps brings less than 3 % of the fall of the held-out loss after
# warm-up. A falling learning rate flattens the end of any curve, so what can be learned must have been learned too.
LAST_PART, LAST_PROGRESS = 0.2, 0.03
LARGEST_ANSWER_LOSS = 0.12  # nats per token; an untrained model has 6.9
DOCUMENTS_PER_PASS = 50
IGNORED = -100


@dataclass(frozen=True)
class Measurement:
    """Losses after `step` steps, in nats per token.

    `heldout_loss`: all tokens of held-out documents, whose random choices nobody can predict. `answer_loss`: the
    answers to questions about facts, sums and lists, which have one right answer, so a model that knows its world
    reaches 0.
    """

    step: int
    heldout_loss: float
    answer_loss: float


class HeldoutText:
    """Held-out documents and questions of a world, tokenised once and measured during pre-training."""

    def __init__(self, tokenizer: Any, *, world_seed: int) -> None:
        def token_ids(document: Document) -> list[int]:
            return tokenizer(with_special_tokens(document, tokenizer), add_special_tokens=False).input_ids

        self._pad = tokenizer.pad_token_id
        texts = islice(documents(seed=HELDOUT_SEED, world_seed=world_seed), HELDOUT_DOCUMENTS)
        self._documents = [(token_ids(text), 0) for text in texts]
        assistant = tokenizer.convert_tokens_to_ids("<|assistant|>")
        asked = map(token_ids, islice(questions(seed=HELDOUT_SEED, world_seed=world_seed), QUESTIONS))
        self._questions = [(ids, ids.index(assistant) + 1) for ids in asked]

    def measure(self, model: Any, *, step: int) -> Measurement:
        """The losses of `model` now; leaves it in training mode."""
        model.eval()
        measured = Measurement(step, self._loss(model, self._documents), self._loss(model, self._questions))
        model.train()
        return measured

    def _loss(self, model: Any, rows: list[tuple[list[int], int]]) -> float:
        """Mean over the tokens from each row's first scored one."""
        import torch

        total, tokens = 0.0, 0
        # Rows of similar length share a pass, which keeps padding small.
        rows = sorted(rows, key=lambda row: len(row[0]))
        with torch.inference_mode():
            for start in range(0, len(rows), DOCUMENTS_PER_PASS):
                batch = rows[start : start + DOCUMENTS_PER_PASS]
                width = len(batch[-1][0])
                ids = torch.tensor([[*row, *[self._pad] * (width - len(row))] for row, _ in batch])
                labels = torch.full_like(ids, IGNORED)
                for index, (row, first) in enumerate(batch):
                    labels[index, first : len(row)] = ids[index, first : len(row)]
                # The first token of a row has no prediction.
                counted = int((labels[:, 1:] != IGNORED).sum())
                total += model(input_ids=ids, labels=labels).loss.item() * counted
                tokens += counted
        return total / tokens


def questions(*, seed: int, world_seed: int) -> Iterator[tuple[str, str]]:
    """An endless stream of questions with one right answer, as question and answer: facts, sums, lists in turn."""
    rng = random.Random(f"held-out questions {seed}")
    facts = make_facts(world_seed)
    while True:
        yield fact_question(rng.choice(facts), rng)
        yield sum_question(*draw_sum(rng), rng)
        yield list_question(rng)


def measured_steps(steps: int) -> set[int]:
    """The steps after which losses are measured: none, and equal parts of all."""
    return {round(part * steps / MEASUREMENTS) for part in range(MEASUREMENTS + 1)}


def last_part_of_fall(curve: list[dict[str, float]], *, warmup_steps: int) -> float:
    """The part of the held-out loss's fall after warm-up that came in the last `LAST_PART` of the steps.

    `curve`: measurements as dictionaries, in the order of their steps.
    """
    first = next(point for point in curve if point["step"] >= warmup_steps)
    late = max(
        (point for point in curve if point["step"] <= (1 - LAST_PART) * curve[-1]["step"]),
        key=lambda point: point["step"],
    )
    fall = first["heldout_loss"] - curve[-1]["heldout_loss"]
    return (late["heldout_loss"] - curve[-1]["heldout_loss"]) / fall


def has_converged(curve: list[dict[str, float]], *, warmup_steps: int) -> bool:
    """Whether a pre-training with this curve is long enough."""
    flat = last_part_of_fall(curve, warmup_steps=warmup_steps) < LAST_PROGRESS
    return flat and curve[-1]["answer_loss"] < LARGEST_ANSWER_LOSS


def as_curve(measurements: list[Measurement]) -> list[dict[str, float]]:
    """Measurements as plain values, losses rounded to what a reader can use."""
    return [{name: round(value, 5) for name, value in asdict(one).items()} for one in measurements]
