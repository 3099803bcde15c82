"""A time limit on work that may never end and that no signal interrupts, such as a pattern matched in native code."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from loragrid.errors import EXIT_USER_ERROR, UserError, first_line, print_line


@contextmanager
def time_limit(seconds: float, what: str, *, fix: str) -> Iterator[None]:
    """End this process with a user error about `what` if the block takes longer than `seconds`.

    The process ends at once, without cleaning up: what the block does cannot be stopped in another way. Raises
    `UserError` if native code gives up by itself, as the tokenizers' regular expressions do after ten million tries.
    """
    timer = threading.Timer(seconds, _end, args=(f"{what} did not end within {seconds:g} s. Fix: {fix}.",))
    timer.daemon = True
    timer.start()
    try:
        yield
    except BaseException as error:
        # A panic of Rust code is no Exception, and its class has no module to import it from.
        if type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{what} gave up ({first_line(error)}). Fix: {fix}.") from None
    finally:
        timer.cancel()


def _end(message: str) -> None:
    print_line(f"error: {message}")
    os._exit(EXIT_USER_ERROR)
