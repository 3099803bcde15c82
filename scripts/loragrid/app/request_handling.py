"""What every request to the app goes through: who may stop it, and what its user is told when it fails."""

import functools
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from loragrid.app.answering import Answer, Answerer, PromptTooLong, Sampling
from loragrid.app.catalogue import Subject
from loragrid.errors import UserError, print_line

# Pages need no more than this many updates a second while a text grows.
SECONDS_PER_UPDATE = 0.05
MAX_SESSIONS = 10_000
ENDINGS = {
    "itself": "ended by itself",
    "length": "cut at the length limit",
    "time": "cut at the time limit",
    "stopped": "stopped",
}


class CancelEvents:
    """One event per browser session, set when its user asks to stop or leaves: it ends the session's running request and
    those that still wait for their turn."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, threading.Event] = OrderedDict()
        self._lock = threading.Lock()

    def arrive(self, session: str | None) -> None:
        """A new request has been made: what was stopped before does not count any more."""
        with self._lock:
            if self._event(session).is_set():
                self._events[str(session)] = threading.Event()

    def of(self, session: str | None) -> threading.Event:
        """The session's event."""
        with self._lock:
            return self._event(session)

    def _event(self, session: str | None) -> threading.Event:
        event = self._events.setdefault(str(session), threading.Event())
        self._events.move_to_end(str(session))
        while len(self._events) > MAX_SESSIONS:
            self._events.popitem(last=False)
        return event


def report_errors(handler: Callable[..., Iterator[dict]], status: Any) -> Callable[..., Iterator[dict]]:
    """Wrap a generator of page updates: what goes wrong is told to its user in a sentence, in the line `status` and to
    whoever calls without a page, and the rest to the terminal."""
    import gradio as gr

    @functools.wraps(handler)
    def wrapped(*arguments: Any, **options: Any) -> Iterator[dict]:
        try:
            yield from handler(*arguments, **options)
            return
        except gr.Error:
            raise
        except PromptTooLong as error:
            sentence = str(error)
        except UserError as error:
            print_line(f"app: {error}")
            sentence = "This model cannot be used; the server's terminal says why."
        except Exception:
            traceback.print_exc()
            sentence = "Something went wrong; the server's terminal says what."
        yield {status: status_html(sentence, "bad")}
        raise gr.Error(escape(sentence), print_exception=False)

    return wrapped


def throttled_answers(
    answerer: Answerer, subject: Subject, prompt: str, sampling: Sampling, stop: threading.Event
) -> Iterator[Answer]:
    """The answer as it grows, at most every `SECONDS_PER_UPDATE`, and whole at the end."""
    shown = 0.0
    for answer in answerer.stream(subject, prompt, sampling, stop):
        if answer.ended or answer.seconds - shown >= SECONDS_PER_UPDATE:
            shown = answer.seconds
            yield answer


def cost_line(answer: Answer) -> str:
    """How long an answer is and took: "52 tokens in 0.4 s (149 tokens/s), ended by itself"."""
    tokens = f"{answer.tokens} token{'' if answer.tokens == 1 else 's'}"
    speed = f"{tokens} in {answer.seconds:.1f} s ({answer.tokens_per_second:.0f} tokens/s)"
    return f"{speed}, {ENDINGS[answer.ended]}" if answer.ended else speed


def status_html(text: str, kind: str = "") -> str:
    """A line that says what is going on; screen readers are told when it changes."""
    return f'<p class="status {kind}" role="status">{escape(text)}</p>'
