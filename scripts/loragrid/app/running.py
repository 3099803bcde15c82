"""Start the app on a catalogue and keep it going until it is stopped."""

import signal
from queue import SimpleQueue

from loragrid.app.answering import Answerer
from loragrid.app.catalogue import Catalogue
from loragrid.app.server import ServerOptions, build, serve
from loragrid.errors import print_line


def run_catalogue(catalogue: Catalogue, serving: ServerOptions) -> None:
    """Load the starting model, serve the app, and wait until it is ended."""
    answerer = Answerer(catalogue)
    start = catalogue.subject(catalogue.start)
    print_line(f"app: loading {start.label}")
    answerer.load(start)
    page = build(answerer)
    end = told_to_end()
    address = serve(page, serving)
    print_line(f"app: open {address} (Ctrl-C ends it)")
    end.get()
    print_line("app: ended")


def told_to_end() -> SimpleQueue:
    """A queue that holds something once Ctrl-C or SIGTERM, with which machines and service managers end a program, has come.

    To be asked for before the app is served: whoever can open it can also end it. An Event would not do: a handler that runs
    while the main thread takes the Event's lock waits for that lock for ever.
    """
    told: SimpleQueue = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: told.put(number))
    return told
