"""Measures of generated answers: where they ended, repetition, stray control tokens."""

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from loragrid.models.chat_templates.end_tokens import end_tokens
from loragrid.scoring.text_measures import repetition

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class AnswerMeasures:
    """Measures of one answer; they explain a score and are not scores themselves.

    `new_tokens`: tokens up to the answer's end; `stopped`: the model ended the answer itself, by an
    end token or a stop text; `repetition`: share of repeated token 4-grams; `special_tokens`:
    control tokens inside the answer, as tokens or spelled out (a sign of mismatched chat
    templates).
    """

    new_tokens: int
    stopped: bool
    repetition: float
    special_tokens: int

    def values(self) -> dict[str, float]:
        """The measures as numbers, metric → value."""
        return {name: float(value) for name, value in asdict(self).items()}


def control_token_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Ids of the tokenizer's named special tokens and of those marked special in its vocabulary."""
    marked = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return marked | set(tokenizer.all_special_ids)


def cut_at_end_token(tokens: list[int], *, end_ids: set[int]) -> tuple[list[int], bool]:
    """The tokens before the first end token, and whether there was one."""
    for index, token in enumerate(tokens):
        # Batched generation pads after an end token.
        if token in end_ids:
            return tokens[:index], True
    return tokens, False


def cut_at_stop_text(tokens: list[int], stops: list[str], tokenizer: Any) -> tuple[list[int], bool]:
    """The shortest prefix whose text contains one of `stops`, and True; or all tokens and False."""
    stops = [stop for stop in stops if stop]

    def has_stop(length: int) -> bool:
        text = tokenizer.decode(tokens[:length], skip_special_tokens=False)
        return any(stop in text for stop in stops)

    if not stops or not has_stop(len(tokens)):
        return tokens, False
    # A prefix that contains a stop text still contains it when it grows, so bisection finds the
    # shortest in a few decodes instead of one per token.
    without, within = 0, len(tokens)
    while within - without > 1:
        middle = (without + within) // 2
        if has_stop(middle):
            within = middle
        else:
            without = middle
    return tokens[:within], True


class AnswerMeter:
    """Measures the answers of one model, whose end and control tokens it looks up once."""

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self.end_ids = set(end_tokens(model, tokenizer))
        self._control_ids = control_token_ids(tokenizer)
        # Control tokens of one or two characters would also match ordinary text.
        texts = [text for text in tokenizer.convert_ids_to_tokens(sorted(self._control_ids)) if len(text) > 2]
        # Longest first: a regular expression takes the first alternative that matches. (?!) matches
        # nothing.
        longest_first = sorted(texts, key=len, reverse=True)
        self._spelled_out = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def end_texts(self) -> set[str]:
        """The end tokens as text."""
        return set(self.tokenizer.convert_ids_to_tokens(sorted(self.end_ids)))

    def measure(self, tokens: list[int], *, stops: list[str]) -> tuple[list[int], AnswerMeasures]:
        """An answer up to its end token or through its first stop text, and its measures.

        `tokens` are the generated ids of one row, without the prompt.
        """
        answer, ended = cut_at_end_token(tokens, end_ids=self.end_ids)
        answer, stopped = cut_at_stop_text(answer, stops, self.tokenizer)
        ordinary = [token for token in answer if token not in self._control_ids]
        text = self.tokenizer.decode(ordinary, skip_special_tokens=False)
        special = len(answer) - len(ordinary) + len(self._spelled_out.findall(text))
        return answer, AnswerMeasures(len(answer), ended or stopped, repetition(answer), special)
