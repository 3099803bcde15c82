"""Delays of logins: after a few attempts each further one waits longer, per name and per address."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from loragrid.app.security_middleware import refuse

# A person mistypes a password a few times; a program that guesses gets about one attempt a minute.
FREE_ATTEMPTS = 3
LONGEST_DELAY_SECONDS = 60.0
# A waiting request keeps a connection open, so those that would wait longer are refused at once.
LONGEST_WAIT_SECONDS = 60.0
FORGET_AFTER_SECONDS = 900.0
MAX_KEYS = 10_000


@dataclass
class _Attempts:
    """Attempts with one name or from one address, and when the next one may be checked (seconds of the clock)."""

    count: int = 0
    next_at: float = 0.0


class LoginDelays:
    """ASGI middleware. `clock` and `sleep` are replaced in tests."""

    def __init__(
        self,
        app: Any,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.app, self._clock, self._sleep = app, clock, sleep
        self._attempts: OrderedDict[tuple[str, str], _Attempts] = OrderedDict()

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Delay attempts to log in; pass all other requests on."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"].rstrip("/") != "/login":
            await self.app(scope, receive, send)
            return
        receive = await _buffered(receive)
        name, address = await _user_name(scope, receive), (scope.get("client") or ("",))[0]
        keys = ("name", name), ("address", address)
        wait = self._wait_seconds(keys)
        if wait > LONGEST_WAIT_SECONDS:
            await refuse(send, 429, f"Too many attempts to log in. Try again in {wait:.0f} seconds.")
            return
        self._reserve(keys, wait)
        await self._sleep(wait)

        async def sending(message: dict) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                # Of the name alone: with an account of their own, others could clear their address between guesses.
                self._attempts.pop(keys[0], None)
            await send(message)

        await self.app(scope, receive, sending)

    def _wait_seconds(self, keys: tuple[tuple[str, str], ...]) -> float:
        now = self._clock()
        return max(0.0, *(self._of(key, now).next_at - now for key in keys))

    def _reserve(self, keys: tuple[tuple[str, str], ...], wait: float) -> None:
        """Count an attempt that is checked after `wait` seconds; before the check, since attempts may come at once."""
        at = self._clock() + wait
        for key in keys:
            attempts = self._of(key, self._clock())
            attempts.count += 1
            beyond = attempts.count - FREE_ATTEMPTS
            attempts.next_at = at + (min(2.0**beyond, LONGEST_DELAY_SECONDS) if beyond >= 0 else 0.0)

    def _of(self, key: tuple[str, str], now: float) -> _Attempts:
        found = self._attempts.pop(key, _Attempts())
        if now - found.next_at > FORGET_AFTER_SECONDS:
            found = _Attempts(next_at=now)
        self._attempts[key] = found
        while len(self._attempts) > MAX_KEYS:
            self._attempts.popitem(last=False)
        return found


async def _buffered(receive: Any) -> Any:
    """`receive` that gives the whole body, read here, as often as it is asked for."""
    body, more = b"", True
    while more:
        message = await receive()
        more = message["type"] == "http.request" and message.get("more_body", False)
        body += message.get("body", b"")

    async def again() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _user_name(scope: dict, receive: Any) -> str:
    """The name in the form, as Gradio reads it; empty if there is none."""
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    try:
        async with Request(scope, receive).form(max_files=0, max_fields=20) as form:
            return str(form.get("username", "")).strip()
    except HTTPException:
        return ""
