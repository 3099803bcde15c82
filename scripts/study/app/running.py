"""Start the app on a catalogue and keep it going until it is stopped."""

import signal
import threading

from study.app.answering import Answerer
from study.app.catalogue import Catalogue
from study.app.server import Serving, build, serve
from study.errors import tell


def run_catalogue(catalogue: Catalogue, serving: Serving) -> None:
    """Load the starting model, serve the app, and wait until it is ended."""
    answerer = Answerer(catalogue)
    start = catalogue.subject(catalogue.start)
    tell(f"app: loading {start.label}")
    answerer.load(start)
    address = serve(build(answerer), serving)
    tell(f"app: open {address} (Ctrl-C ends it)")
    wait_for_the_end()
    tell("app: ended")


def wait_for_the_end() -> None:
    """Return at Ctrl-C, and at the SIGTERM with which machines and service managers end a program."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        ended.wait()
    except KeyboardInterrupt:
        return
