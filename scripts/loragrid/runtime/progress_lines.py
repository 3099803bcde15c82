"""Lines that say how far a long piece of work is, so that a terminal or a log is never silent for long."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self

from loragrid.errors import print_progress

# Nothing is silent for longer than ten seconds, on a busy machine either.
LINE_SECONDS = 8.0


class RepeatedLines:
    """Context manager that calls `say` every `seconds` until its end; short work says nothing.

    Of nested ones only the innermost calls.
    """

    _nested: ClassVar[list["RepeatedLines"]] = []

    def __init__(self, say: Callable[[], None], *, seconds: float = 0.0) -> None:
        self._say, self._every = say, seconds
        self._ended = threading.Event()
        # A thread, because a single pass of a large model on a CPU takes longer than a line may wait.
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Self:
        self._nested.append(self)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._nested.remove(self)
        self._thread.join()

    def _repeat(self) -> None:
        while not self._ended.wait(self._every or LINE_SECONDS):
            if self._nested[-1:] == [self]:
                self._say()


class ProgressLines(RepeatedLines):
    """`RepeatedLines` about work on a number of items.

    `label`: what the line begins with; `total`: the number of items, called `items` in the line, 0 if there is nothing
    to count; `tokens`: how many tokens all of them have, 0 if unknown. With `at_most` it is a bound: answers may
    end earlier.
    """

    def __init__(self, label: str, *, total: int, items: str, tokens: int = 0, at_most: bool = False) -> None:
        super().__init__(self._print)
        self._label, self._total, self._items = label, total, items
        self._tokens, self._at_most = tokens, at_most
        self._done = self._tokens_done = 0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return super().__enter__()

    def add(self, *, items: int = 0, tokens: int = 0, unused: int = 0) -> None:
        """Count finished items and computed tokens; `unused`: tokens of the bound that will not be computed."""
        self._done += items
        self._tokens_done += tokens
        self._tokens -= unused

    def line(self) -> str:
        """The line as of now."""
        seconds = time.monotonic() - self._began
        parts = [f"{self._label}: {self._done:,} of {self._total:,} {self._items}" if self._total else self._label]
        if self._tokens_done:
            parts.append(f"{self._tokens_done:,} tokens, {self._tokens_done / seconds:.0f} tokens/s")
        return f"{', '.join(parts)} | {seconds:.0f} s{self._left(seconds)}"

    def _left(self, seconds: float) -> str:
        """The time left by the pace so far; empty before anything is done."""
        left = self._seconds_left(seconds)
        bound = "at most " if self._at_most else ""
        return "" if left is None else f", {bound}{left:.0f} s left"

    def _seconds_left(self, seconds: float) -> float | None:
        done, whole = (self._tokens_done, self._tokens) if self._tokens else (self._done, self._total)
        return max(0.0, seconds * (whole - done) / done) if done else None

    def _print(self) -> None:
        seconds = time.monotonic() - self._began
        what = self._label.rpartition("] ")[2]
        print_progress(
            self.line(),
            done=self._done,
            total=self._total,
            unit=self._items,
            text=what if self._total else f"{what}, {seconds:.0f} s",
            # A bound is no estimate.
            seconds_left=None if self._at_most else self._seconds_left(seconds),
        )


def working(label: str) -> ProgressLines:
    """Lines about work of unknown length, such as loading a model."""
    return ProgressLines(label, total=0, items="")
