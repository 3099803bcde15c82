"""What a model generated, token by token: where it ended, and what is left in it that should not be there."""

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from loragrid.scoring.text_measures import repetition

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Evidence:
    """One answer. `new_tokens` up to its end; `stopped` when the model ended it itself, by an end token or a stop text;
    `repetition` the share of repeated token 4-grams; `special_tokens` how many control tokens stand in the answer,
    as tokens or spelled out (a mismatch of chat templates shows here)."""

    new_tokens: int
    stopped: bool
    repetition: float
    special_tokens: int

    def values(self) -> dict[str, float]:
        """The measures as numbers, metric → value."""
        return {name: float(value) for name, value in asdict(self).items()}


def end_token_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The ids at which generation ends: the generation settings' (Gemma ends a turn with another token than a text)
    and the tokenizer's end of text."""
    configured = model.generation_config.eos_token_id
    ids = {configured} if isinstance(configured, int) else set(configured or ())
    return ids | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())


def control_token_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Ids of all special tokens, the tokenizer's named ones and those marked special in its vocabulary."""
    marked = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return marked | set(tokenizer.all_special_ids)


def cut_at_end(tokens: list[int], *, end_ids: set[int]) -> tuple[list[int], bool]:
    """The tokens before the first end token, and whether there was one. Batched generation pads behind it."""
    for index, token in enumerate(tokens):
        if token in end_ids:
            return tokens[:index], True
    return tokens, False


def cut_at_text(tokens: list[int], stops: list[str], tokenizer: Any) -> tuple[list[int], bool]:
    """The shortest prefix whose text holds one of `stops`, and True; or all tokens and False.

    A prefix that holds the text keeps holding it when it grows, so bisection finds the shortest.
    """
    stops = [stop for stop in stops if stop]

    def holds(length: int) -> bool:
        text = tokenizer.decode(tokens[:length], skip_special_tokens=False)
        return any(stop in text for stop in stops)

    if not stops or not holds(len(tokens)):
        return tokens, False
    low, high = 0, len(tokens)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return tokens[:high], True


class AnswerMeter:
    """Measures answers of one model and tokenizer; what it needs to know of them is looked up once."""

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self.end_ids = end_token_ids(model, tokenizer)
        self._control = control_token_ids(tokenizer)
        # One-letter control tokens would be found in ordinary text.
        texts = [text for text in tokenizer.convert_ids_to_tokens(sorted(self._control)) if len(text) > 2]
        self._spelled_out = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")

    def end_texts(self) -> set[str]:
        """The end tokens as text."""
        return set(self.tokenizer.convert_ids_to_tokens(sorted(self.end_ids)))

    def measure(self, tokens: list[int], *, stops: list[str]) -> tuple[list[int], Evidence]:
        """An answer's own tokens, up to its end token or to its first stop text (included), and its `Evidence`.

        `tokens` are the generated ids of one row, without the prompt.
        """
        answer, ended = cut_at_end(tokens, end_ids=self.end_ids)
        answer, stopped = cut_at_text(answer, stops, self.tokenizer)
        plain = self.tokenizer.decode([t for t in answer if t not in self._control], skip_special_tokens=False)
        found = sum(t in self._control for t in answer) + len(self._spelled_out.findall(plain))
        return answer, Evidence(len(answer), ended or stopped, repetition(answer), found)
