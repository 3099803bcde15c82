"""The study's rephrased prompts: read, rendered, and looked up in the training rows."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loragrid.errors import UserError
from loragrid.models.chat_templates.control_tokens import ControlTokens, turn_markers
from loragrid.scoring.heldout.losses import read_columns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Chat = list[dict[str, str]]
SAYS_NOTHING = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]


@dataclass(frozen=True)
class Prompt:
    """A training prompt, rephrased (`prompt`) and as in the data (`original`), and its `reference`."""

    id: str
    prompt: str
    original: str
    reference: str


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts from JSONL with the keys id, prompt, original and reference.

    Raises `UserError` that names the bad line.
    """
    prompts: dict[str, Prompt] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"scoring.qualitative: {path} cannot be read ({error}). Fix: give a JSONL file in UTF-8."
        ) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        prompt = _read_line(line, f"{path}, line {number}")
        if prompt.id in prompts:
            raise UserError(f"{path}, line {number}: id {prompt.id!r} is used twice. Fix: give each prompt its own id.")
        prompts[prompt.id] = prompt
    if not prompts:
        raise UserError(f"{path}: no prompts. Fix: write at least one, or set scoring.qualitative to null.")
    return list(prompts.values())


def _read_line(line: str, where: str) -> Prompt:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error}). Fix: write one object per line.") from None
    keys = tuple(Prompt.__dataclass_fields__)
    if not isinstance(row, dict) or set(row) != set(keys):
        raise UserError(f"{where}: wrong keys. Fix: write an object with exactly {', '.join(keys)}.")
    for key in keys:
        if not isinstance(row[key], str) or not row[key].strip():
            raise UserError(f"{where}: {key} is empty or not text ({row[key]!r}). Fix: write it as text.")
    return Prompt(**row)


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", question: str) -> list[int]:
    """Token ids of a single user turn in the chat template, ending where the answer begins.

    Control tokens that the question spells out are encoded as text, as in training.
    """
    _, text, encode = _rendered(tokenizer, [{"role": "user", "content": question}], add_generation_prompt=True)
    return encode(text)


def reference_ids(tokenizer: "PreTrainedTokenizerBase", reference: str) -> list[int]:
    """Token ids of a reference answer; control tokens that it spells out are encoded as text."""
    control = _control(tokenizer)
    if control.spelled_out_in(reference):
        masked = control.mask(reference)
        return control.encode(masked.value, masked).ids
    return tokenizer(reference, add_special_tokens=False).input_ids


def _control(tokenizer: "PreTrainedTokenizerBase") -> ControlTokens:
    says_nothing = tokenizer.apply_chat_template(SAYS_NOTHING, tokenize=False, add_generation_prompt=True)
    return ControlTokens(tokenizer, markers=turn_markers(tokenizer, says_nothing))


def _rendered(
    tokenizer: "PreTrainedTokenizerBase", chat: Chat, *, add_generation_prompt: bool
) -> tuple[Chat, str, Callable[[str], list[int]]]:
    """The chat and its text, with masks for control tokens that it spells out, and the text's encoder."""

    def render(messages: Chat) -> str:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)

    control = _control(tokenizer)
    if control.spelled_out_in(chat):
        masked = control.mask(chat)
        return masked.value, render(masked.value), lambda text: control.encode(text, masked).ids
    # The template writes its own special tokens.
    return chat, render(chat), lambda text: tokenizer(text, add_special_tokens=False).input_ids


def in_training(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Prompt], parquet: Path) -> list[bool]:
    """Per prompt whether a row of `train.parquet` starts with its original wording and reference.

    Only such an answer can have been memorised. A row that was cut to the length limit must match
    as far as it goes. All rows count, also those that a run of less than an epoch did not draw.
    """
    column = read_columns(parquet, ["input_ids"]).column("input_ids").combine_chunks()
    starts, tokens = column.offsets.to_numpy(), column.values.to_numpy()
    found = []
    for prompt in prompts:
        question = prompt_ids(tokenizer, prompt.original)
        wanted = _exchange_ids(tokenizer, prompt, question)
        found.append(_any_row_starts_with(np.array(wanted), min(len(question), len(wanted) - 1), starts, tokens))
    return found


def _exchange_ids(tokenizer: "PreTrainedTokenizerBase", prompt: Prompt, question: list[int]) -> list[int]:
    """Token ids of the original question with its reference, as a training row begins with them."""
    chat = [
        {"role": "user", "content": prompt.original},
        {"role": "assistant", "content": prompt.reference.strip()},
    ]
    chat, text, encode = _rendered(tokenizer, chat, add_generation_prompt=False)
    reference = chat[-1]["content"]
    # Some templates put empty thoughts before a finished answer, which the opening of an answer does not have.
    before, found, _ = text.rpartition(reference)
    if not found:
        return question + encode(reference)
    return encode(before + reference)


def _any_row_starts_with(wanted: np.ndarray, question_length: int, starts: np.ndarray, tokens: np.ndarray) -> bool:
    """Whether a row starts with `wanted`, or is a start of it that is longer than the question.

    Row i is tokens[starts[i]:starts[i + 1]].
    """
    begins, lengths = starts[:-1], np.diff(starts)
    rows = np.flatnonzero(lengths > question_length)
    # All rows at once, token by token: questions mostly differ in their first words, so few rows
    # remain.
    for place in range(question_length):
        rows = rows[tokens[begins[rows] + place] == wanted[place]]
    for row in rows:
        length = min(lengths[row], len(wanted))
        if np.array_equal(tokens[begins[row] : begins[row] + length], wanted[:length]):
            return True
    return False
