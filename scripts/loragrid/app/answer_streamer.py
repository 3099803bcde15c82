"""Turns the tokens of `generate` into growing answers, and ends an answer at the user's stop or the time limit."""

import threading
import time
from dataclasses import dataclass
from typing import Any

# Nobody waits longer than this for an answer in a browser.
MAX_SECONDS = 120.0


@dataclass(frozen=True)
class Answer:
    """An answer so far. `seconds` counts from the first token's computation.

    `ended` is "" while the model writes, then the reason for the end: "finished", "length" (token limit or context),
    "time" or "stopped" (by the user).
    """

    text: str
    tokens: int
    seconds: float
    ended: str

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of writing; 0 before any time has passed."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


class AnswerStreamer:
    """A transformers streamer that puts the answer so far into a queue, and a stopping criterion."""

    def __init__(self, tokenizer: Any, end_ids: set[int], stop: threading.Event, answers: Any) -> None:
        self._tokenizer, self._end_ids = tokenizer, end_ids
        self._stop, self._answers = stop, answers
        self._tokens: list[int] = []
        self._ended = "length"
        self._prompt_seen = False
        self._start = time.monotonic()

    def put(self, value: Any) -> None:
        """Receive tokens from `generate`: first the prompt, then one token at a time."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self._tokens += [token for token in value.flatten().tolist() if token not in self._end_ids]
        if value.flatten()[-1].item() in self._end_ids:
            self._ended = "finished"
        else:
            self._answers.put(self._answer(""))

    def end(self) -> None:
        """Required by `generate`, which does not pass the reason; `finish` knows it."""

    def should_end(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Whether to stop (bool tensor [batch]): the user asked for it, or the time is up."""
        import torch

        stopped, late = self._stop.is_set(), time.monotonic() - self._start > MAX_SECONDS
        # A model that has just finished by itself was not stopped.
        if (stopped or late) and self._ended == "length":
            self._ended = "stopped" if stopped else "time"
        return torch.full((input_ids.shape[0],), stopped or late, device=input_ids.device, dtype=torch.bool)

    def finish(self) -> None:
        """Put the final answer, with the reason for its end."""
        self._answers.put(self._answer(self._ended))

    def _answer(self, ended: str) -> Answer:
        text = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        if not ended:
            # A character of several tokens decodes to U+FFFD until its last token has arrived.
            text = text.rstrip("\ufffd")
        return Answer(text, len(self._tokens), time.monotonic() - self._start, ended)
