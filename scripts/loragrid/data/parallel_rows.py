"""Work on batches of rows in several processes, with the results in the order of the batches."""

import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from loragrid.errors import EXIT_USER_ERROR, Failed

Item, Result = TypeVar("Item"), TypeVar("Result")

# A forked process has the tokenizer and all libraries already. The data stage never initialises CUDA, after which a
# forked process could not use it. Elsewhere than on Linux, system libraries do not survive a fork.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"
WAITING_BATCHES = 2  # per process, which bounds the memory of rows that wait
PARENT_CHECK_SECONDS = 1.0

_processes = 1
# In a worker: the function and its first argument.
_work: tuple[Callable[..., Any], Any] | None = None


@contextmanager
def row_processes(number: int) -> Iterator[None]:
    """Within the block, `map_batches` uses this number of processes. Results do not depend on it."""
    global _processes
    before, _processes = _processes, number
    try:
        yield
    finally:
        _processes = before


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def map_batches(function: Callable[[Any, Any], Result], shared: Any, work: Iterable[Any]) -> Iterator[Result]:
    """`function(shared, batch)` of each batch, in order.

    With several processes each gets `shared` once; function, batches and results are pickled. An exception of the
    function is raised at the place of its batch. Raises `Failed` if a process is killed.
    """
    work = iter(work)
    first = list(itertools.islice(work, 2))
    if _processes > 1 and len(first) > 1:
        yield from _in_processes(function, shared, itertools.chain(first, work), _processes)
        return
    for batch in itertools.chain(first, work):
        yield function(shared, batch)


def _in_processes(function: Callable, shared: Any, work: Iterator[Any], processes: int) -> Iterator[Any]:
    # What is buffered would be written once by each process.
    sys.stdout.flush(), sys.stderr.flush()
    executor = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context(START_METHOD),
        initializer=_start_worker,
        initargs=(os.getpid(), function, shared),
    )
    waiting: deque = deque()
    children: set[Any] = set()
    try:
        for batch in work:
            waiting.append(executor.submit(_run, batch))
            children.update(multiprocessing.active_children())
            if len(waiting) == processes * WAITING_BATCHES:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        # The pool breaks before the kernel knows how a process ended: this waits for all of them.
        executor.shutdown(cancel_futures=True)
        # A process that found out why has said so (loragrid.runtime.time_limit).
        if any(child.exitcode == EXIT_USER_ERROR for child in children):
            raise SystemExit(EXIT_USER_ERROR) from None
        raise Failed(
            "a process that prepares rows was killed, probably for lack of memory. Fix: give fewer cores.",
            reason="out_of_memory",
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker(parent: int, function: Callable, shared: Any) -> None:
    global _processes, _work
    _processes, _work = 1, (function, shared)
    # Ctrl-C reaches all processes of the terminal; the parent ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    """Exit when the parent is gone: after a SIGKILL nobody else ends this process."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


def _run(batch: Any) -> Any:
    function, shared = _work
    return function(shared, batch)
