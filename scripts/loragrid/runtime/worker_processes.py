"""Work in separate processes: several batches at once, or code of others that may never end.

Nothing within a process ends it while native code holds Python's lock, as `10**(10**8)` in a chat template does for
hours. So the operating system ends a process that has used more CPU time than its limit.
"""

import math
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from loragrid.errors import Failed, UserError, first_line

Result = TypeVar("Result")

# A forked process has the tokenizer and all libraries already. The data stage never initialises CUDA, after which a
# forked process could not use it. Elsewhere than on Linux, system libraries do not survive a fork.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"
WAITING_BATCHES = 2  # per process, which bounds the memory of batches that wait
PARENT_CHECK_SECONDS = 1.0

# In a worker: the function, its first argument, and the limit.
_work: "tuple[Callable[..., Any], Any, TimeLimit | None] | None" = None


@dataclass(frozen=True)
class TimeLimit:
    """CPU seconds that a batch may take, what is to blame if it takes more (`what`), and what to do then (`fix`)."""

    seconds: float
    what: str
    fix: str

    def exceeded(self, where: str = "") -> UserError:
        """The error about work that did not end; `where`: on which batches, if that is known."""
        return UserError(f"{self.what}{where} did not end within {self.seconds:g} s of CPU time. Fix: {self.fix}.")


def in_own_process(function: Callable[[Any], Result], argument: Any, limit: TimeLimit) -> Result:
    """`function(argument)` in a process that is ended at the limit. Raises `UserError` then."""
    # Shared with the process as it is, and not sent to it as batches are.
    (result,) = map_in_processes(_call, (function, argument), [None], 1, limit)
    return result


def _call(call: tuple[Callable[[Any], Result], Any], _: None) -> Result:
    function, argument = call
    return function(argument)


def map_in_processes(
    function: Callable[[Any, Any], Result],
    shared: Any,
    work: Iterable[Any],
    processes: int,
    limit: TimeLimit | None = None,
    describe: Callable[[list[Any]], str] | None = None,
) -> Iterator[Result]:
    """`function(shared, batch)` of each batch, in order, by several processes that get `shared` once.

    `describe`: the text that names the batches of which one did not end. Raises what the function raises, at the place
    of its batch, `UserError` at the limit, and `Failed` if a process is killed.
    """
    # What is buffered would be written once by each process.
    sys.stdout.flush(), sys.stderr.flush()
    executor = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context(START_METHOD),
        initializer=_start_worker,
        initargs=(os.getpid(), function, shared, limit),
    )
    waiting: deque = deque()
    others, children = set(multiprocessing.active_children()), set()
    try:
        for batch in work:
            waiting.append((batch, executor.submit(_run, batch)))
            children.update(set(multiprocessing.active_children()) - others)
            if len(waiting) == processes * WAITING_BATCHES:
                yield waiting[0][1].result()
                waiting.popleft()
        while waiting:
            yield waiting[0][1].result()
            waiting.popleft()
    except BrokenProcessPool:
        # The pool breaks before the kernel knows how a process ended: this waits for all of them.
        executor.shutdown(cancel_futures=True)
        where = describe([batch for batch, _ in waiting]) if describe else ""
        raise _why_broken(children, limit, where) from None
    except BaseException:
        # The other results are not needed any more, and Ctrl-C must not wait for them.
        for child in children:
            child.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _why_broken(children: Iterable[Any], limit: TimeLimit | None, where: str) -> Exception:
    if limit and any(child.exitcode == -signal.SIGXCPU for child in children):
        return limit.exceeded(where)
    return Failed(
        "a worker process was killed, probably for lack of memory. Fix: give fewer cores.",
        reason="out_of_memory",
    )


def _start_worker(parent: int, function: Callable, shared: Any, limit: TimeLimit | None) -> None:
    global _work
    _work = function, shared, limit
    # Ctrl-C reaches all processes of the terminal; the parent ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    """Exit when the parent is gone: after a SIGKILL nobody else ends this process."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


def _run(batch: Any) -> Any:
    function, shared, limit = _work
    if limit is None:
        return function(shared, batch)
    _end_after(limit.seconds)
    try:
        return function(shared, batch)
    except BaseException as error:
        # A panic of Rust code, as of a regular expression after ten million tries, is no Exception, and its class has
        # no module to import it from.
        if type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{limit.what} gave up ({first_line(error)}). Fix: {limit.fix}.") from None


def _end_after(seconds: float) -> None:
    """Let the system end this process when it has used that many more CPU seconds."""
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        until = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))
