"""Whether this process stays for further jobs, and what it holds for them.

A resident worker does one job after another, so modules may hold what the next job would make again. Everywhere else
they hold nothing.
"""

from collections.abc import Callable

_resident = False
_releases: list[Callable[[], None]] = []
_leaving: list[str] = []


def stay() -> None:
    """Make this process a resident worker."""
    global _resident
    _resident = True


def is_resident() -> bool:
    """Whether this process is a resident worker."""
    return _resident


def on_release(release: Callable[[], None]) -> Callable[[], None]:
    """Decorator of a function that lets go of what a module holds."""
    _releases.append(release)
    return release


def release_all() -> None:
    """Let go of everything that is held."""
    for release in _releases:
        release()


def leave_after_job(reason: str) -> None:
    """End the resident worker after its current job, because `reason` changed the process for good."""
    _leaving.append(reason)


def is_leaving() -> bool:
    """Whether the worker ends after its current job."""
    return bool(_leaving)
