"""Shared by all requests to the app: cancelling, error messages, throttled updates and the status line."""

import functools
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from loragrid.app.answer_streamer import Answer
from loragrid.app.answering import Answerer, PromptTooLong, Sampling
from loragrid.app.catalogue import AppModel
from loragrid.errors import UserError, print_line

# More updates a second would only load the browser.
SECONDS_PER_UPDATE = 0.05
# A page that vanishes without an unload event leaves its session behind, so the oldest ones are dropped.
MAX_SESSIONS = 10_000
ENDINGS = {
    "finished": "finished",
    "length": "cut at the length limit",
    "time": "cut at the time limit",
    "stopped": "stopped",
}


class CancelEvents:
    """One event per browser session, set when its user presses Stop or closes the page. It ends the session's running
    request and its waiting ones."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, threading.Event] = OrderedDict()
        self._lock = threading.Lock()

    def start_request(self, session: str | None) -> None:
        """Give the session a fresh event if an earlier request was cancelled."""
        with self._lock:
            if self._event(session).is_set():
                self._events[str(session)] = threading.Event()

    def event(self, session: str | None) -> threading.Event:
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
    """Wrap a generator of page updates. On an error the user gets one sentence, in the line `status` and as the API's
    error, and the terminal gets the details."""
    import gradio as gr

    @functools.wraps(handler)
    def wrapped(*arguments: Any, **options: Any) -> Iterator[dict]:
        try:
            yield from handler(*arguments, **options)
            return
        except gr.Error:  # already a sentence for the user
            raise
        except PromptTooLong as error:
            sentence = str(error)
        except UserError as error:
            # Its text names paths of the server, and only the server's owner can act on it.
            print_line(f"app: {error}")
            sentence = "This model cannot be used. The server's terminal shows the reason."
        except Exception:
            # The details of a bug could show paths or other users' texts, so only the terminal gets them.
            traceback.print_exc()
            sentence = "Something went wrong. The server's terminal shows the error."
        yield {status: status_html(sentence, "bad")}
        raise gr.Error(escape(sentence), print_exception=False)

    return wrapped


def throttled_answers(
    answerer: Answerer, subject: AppModel, prompt: str, sampling: Sampling, stop: threading.Event
) -> Iterator[Answer]:
    """The growing answer, at most once per `SECONDS_PER_UPDATE`, and the final answer."""
    shown = 0.0
    for answer in answerer.stream(subject, prompt, sampling, stop):
        if answer.ended or answer.seconds - shown >= SECONDS_PER_UPDATE:
            shown = answer.seconds
            yield answer


def cost_line(answer: Answer) -> str:
    """Length and time of an answer: "52 tokens in 0.4 s (149 tokens/s), finished"."""
    unit = "token" if answer.tokens == 1 else "tokens"
    speed = f"{answer.tokens} {unit} in {answer.seconds:.1f} s ({answer.tokens_per_second:.0f} tokens/s)"
    if not answer.ended:
        return speed
    return f"{speed}, {ENDINGS[answer.ended]}"


def status_html(text: str, kind: str = "") -> str:
    """The status line; `role="status"` makes screen readers announce its changes."""
    return f'<p class="status {kind}" role="status">{escape(text)}</p>'
