"""Work on batches of rows in several processes, with the results in the order of the batches."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from loragrid.runtime.worker_processes import TimeLimit, map_in_processes

Item, Result = TypeVar("Item"), TypeVar("Result")

_processes = 1


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


def map_batches(
    function: Callable[[Any, Any], Result],
    shared: Any,
    work: Iterable[Any],
    *,
    limit: TimeLimit | None = None,
    describe: Callable[[list[Any]], str] | None = None,
) -> Iterator[Result]:
    """`function(shared, batch)` of each batch, in order.

    With several processes, or a limit on the time of a batch, each process gets `shared` once; function, batches and
    results are pickled. `describe` and exceptions: see `map_in_processes`.
    """
    work = iter(work)
    first = list(itertools.islice(work, 2))
    if first and (limit or (_processes > 1 and len(first) > 1)):
        yield from map_in_processes(function, shared, itertools.chain(first, work), _processes, limit, describe)
        return
    for batch in itertools.chain(first, work):
        yield function(shared, batch)
