"""Whether this process stays for further jobs, and what it holds for them.

A resident worker does one job after another, so modules may hold what the next job would make again. Everywhere else
they hold nothing.
"""

from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")

_resident = False
# By name: what the last job made, and the key that it was made for.
_kept: dict[str, tuple[Any, Any]] = {}
_releases: list[Callable[[], None]] = []
_caches: list[Any] = []
_leaving: list[str] = []


def stay() -> None:
    """Make this process a resident worker."""
    global _resident
    _resident = True


def is_resident() -> bool:
    """Whether this process is a resident worker."""
    return _resident


def kept(name: str, *, key: Callable[[], Any], make: Callable[[], Value]) -> Value:
    """What `make` returns; a resident worker keeps it, in the machine's memory, until `key` returns another value."""
    if not _resident:
        return make()
    now = key()
    if name not in _kept or _kept[name][0] != now:
        _kept[name] = now, make()
    return _kept[name][1]


def on_release(release: Callable[[], None]) -> Callable[[], None]:
    """Decorator of a function that lets go of what a module holds."""
    _releases.append(release)
    return release


def release_all(*, but: Callable[[], None] | None = None) -> None:
    """Let go of everything that is held, `but` what this function lets go of."""
    for release in _releases:
        if release is not but:
            release()


def until_next_job(cached: Any) -> Any:
    """Decorator of a cached function that reads files: the next job of a resident worker reads them again."""
    _caches.append(cached)
    return cached


def forget_results() -> None:
    """Empty the caches of functions that are decorated by `until_next_job`."""
    for cached in _caches:
        cached.cache_clear()


def leave_after_job(reason: str) -> None:
    """End the resident worker after its current job, because `reason` changed the process for good."""
    _leaving.append(reason)


def is_leaving() -> bool:
    """Whether the worker ends after its current job."""
    return bool(_leaving)
