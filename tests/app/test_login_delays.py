"""Delays of logins, with a clock of the tests: per name and per address, in sequence and at once."""

import asyncio
from urllib.parse import urlencode

import pytest

from loragrid.app.login_delays import FORGET_AFTER_SECONDS, MAX_KEYS, LoginDelays

RIGHT = "right"


class Login:
    """A login page behind the delays; `waits` are the seconds of each attempt, None for one that is refused."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, []
        self.delays = LoginDelays(self._page, clock=lambda: self.now, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def _page(self, scope: dict, receive, send) -> None:
        password = (await receive())["body"].decode()
        status = 200 if RIGHT in password else 400
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def attempt(
        self, name: str = "ada", password: str = "wrong", *, address: str = "10.0.0.1", path: str = "/login"
    ) -> int:
        """The status of one attempt."""
        body = urlencode({"username": name, "password": password}).encode()
        parts = [body[:5], body[5:]]
        kind = [(b"content-type", b"application/x-www-form-urlencoded")]
        scope = {"type": "http", "method": "POST", "path": path, "headers": kind, "client": (address, 1)}
        statuses = []

        async def receive() -> dict:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: dict) -> None:
            statuses.append(message.get("status"))

        asyncio.run(self.delays(scope, receive, send))
        if statuses[0] == 429:
            self.waits.append(None)
        return statuses[0]


@pytest.fixture
def login() -> Login:
    return Login()


def test_a_few_mistakes_cost_nothing_and_further_ones_ever_more(login: Login) -> None:
    for _ in range(6):
        login.attempt()
        login.now += sum(login.waits[-1:])
    assert login.waits == [0, 0, 0, 1, 2, 4]


def test_attempts_at_once_wait_for_each_other_and_then_are_refused(login: Login) -> None:
    statuses = [login.attempt() for _ in range(10)]
    assert login.waits == [0, 0, 0, 1, 3, 7, 15, 31, None, None]
    assert statuses[-1] == 429


def test_one_name_from_many_addresses(login: Login) -> None:
    for number in range(5):
        login.attempt(address=f"10.0.0.{number}")
    assert login.waits == [0, 0, 0, 1, 3]


def test_many_names_from_one_address(login: Login) -> None:
    for number in range(5):
        login.attempt(f"name{number}")
    assert login.waits == [0, 0, 0, 1, 3]


def test_others_do_not_wait(login: Login) -> None:
    for _ in range(10):
        login.attempt()
    assert login.attempt("bob", RIGHT, address="10.0.0.2") == 200 and login.waits[-1] == 0


def test_the_right_password_clears_the_name_but_not_the_address(login: Login) -> None:
    for _ in range(4):
        login.attempt()
        login.now += sum(login.waits[-1:])
    login.now += 2
    assert login.attempt(password=RIGHT) == 200
    assert login.attempt(address="10.0.0.9") == 400 and login.waits[-1] == 0
    login.attempt("another")
    assert login.waits[-1] > 0


def test_old_attempts_are_forgotten_and_the_memory_is_bounded(login: Login) -> None:
    for _ in range(8):
        login.attempt()
    login.now += FORGET_AFTER_SECONDS + 60
    login.attempt()
    assert login.waits[-1] == 0
    login.delays._attempts.update({("name", str(n)): login.delays._of(("name", "x"), 0.0) for n in range(MAX_KEYS)})
    login.attempt("new", address="10.9.9.9")
    assert len(login.delays._attempts) <= MAX_KEYS


def test_a_form_without_a_name_and_another_path(login: Login) -> None:
    assert login.attempt("", "") == 400
    assert login.attempt(path="/config") == 400 and len(login.waits) == 1
