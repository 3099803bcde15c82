"""Which of the study's prompts stand in the training rows: only of those can an answer have been learned by heart."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loragrid.scoring.answers import Prompt, render
from loragrid.scoring.heldout_loss import read_columns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def in_training(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Prompt], parquet: Path) -> list[bool]:
    """Per prompt whether some row of `train.parquet` begins with its original wording and reference, token for token; a row
    that was cut need only hold what fits. Which rows a run of less than an epoch drew is not looked at."""
    column = read_columns(parquet, ["input_ids"]).column("input_ids").combine_chunks()
    starts, tokens = column.offsets.to_numpy(), column.values.to_numpy()
    asked = [render(tokenizer, prompt.original) for prompt in prompts]
    answers = [tokenizer(prompt.reference.strip(), add_special_tokens=False).input_ids for prompt in prompts]
    return [_begins(np.array(a + b), len(a), starts, tokens) for a, b in zip(asked, answers, strict=True)]


def _begins(wanted: np.ndarray, asked: int, starts: np.ndarray, tokens: np.ndarray) -> bool:
    """Whether a row (from starts[i] to starts[i+1] in `tokens`) begins with `wanted`, whose first `asked` are the question."""
    begins, lengths = starts[:-1], np.diff(starts)
    rows = np.flatnonzero(lengths > asked)
    for place in range(asked):  # questions mostly differ in their first words
        rows = rows[tokens[begins[rows] + place] == wanted[place]]
    for row in rows:
        length = min(lengths[row], len(wanted))
        if np.array_equal(tokens[begins[row] : begins[row] + length], wanted[:length]):
            return True
    return False
