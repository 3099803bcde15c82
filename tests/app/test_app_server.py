"""The app's server without a browser: closed paths, limits, many users, and no files written."""

import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from loragrid.app import server
from loragrid.app.answering import Answerer, Sampling
from loragrid.app.compare_tab import NO_MODEL
from loragrid.app.security_middleware import LOOPBACK, MAX_BODY_BYTES
from loragrid.errors import UserError
from loragrid.formatting import visible
from tests.fixtures.app_toys import PLAN, Scripted, finished_study, serving, toy_catalogue

gradio_client = pytest.importorskip("gradio_client")
MARK = "Zyxwvut-4711"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, toy_llama: Path):
    return finished_study(tmp_path_factory.mktemp("app"), toy=toy_llama)


@pytest.fixture(scope="module")
def answerer(study) -> Answerer:
    return Answerer(toy_catalogue(study))


@pytest.fixture(scope="module")
def address(answerer: Answerer):
    address, page = serving(answerer)
    yield address.rstrip("/")
    page.close(verbose=False)


@pytest.mark.parametrize(("plans", "first"), [(True, "Plan"), (False, "Compare")])
def test_the_form_of_running_plans_comes_first_only_in_a_study_of_them(study, plans: bool, first: str) -> None:
    page = server.build(Answerer(replace(toy_catalogue(study), plans=plans)))
    tabs = [block.label for block in page.blocks.values() if block.get_block_name() == "tabitem"]
    page.close(verbose=False)
    assert toy_catalogue(study).plans and tabs[0] == first and sorted(tabs) == ["Compare", "Plan", "Study"]


def plan_inputs(*, name: str = "", race: str = "10K", weeks: object = 2, days: object = 3, details: str = "") -> list:
    return [name, race, "beginner", weeks, days, "", "any day", "", details, False, "2027-03-01"]


def ask_plan(client, **options) -> tuple[str, str, list]:
    """(status, text, all outputs) of one request; each output is the last value for its place, or None."""
    job = client.submit(*plan_inputs(**options), api_name="/plan")
    job.result(timeout=120)
    last: list = [None] * 9
    for outputs in job.outputs():
        for index, value in enumerate(outputs[:9]):
            if not isinstance(value, dict):
                last[index] = value
    return last[0], last[1], last


def client_of(address: str, **options):
    return gradio_client.Client(address, verbose=False, download_files=False, httpx_kwargs={"timeout": 120}, **options)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/upload",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/file=http://127.0.0.1:1/x",
        "/gradio_api/proxy=http://127.0.0.1:1/x",
        "/gradio_api/deep_link",
        "/gradio_api/runs",
        "/monitoring",
        "/assets/../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_all_other_paths_are_closed(address: str, path: str) -> None:
    for method in ("GET", "POST"):
        answer = httpx.request(method, f"{address}{path}", content=b"x", headers={"content-type": "text/plain"})
        assert answer.status_code in (403, 404, 405) and "root:" not in answer.text


def test_the_page_forbids_everything_from_elsewhere(address: str) -> None:
    answer = httpx.get(address)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'self'" in policy
    assert not re.search(r"<(script|link)[^>]+(src|href)=.?https?://", answer.text)


def test_a_machine_that_is_slow_to_load_its_own_page_still_serves_it(monkeypatch: pytest.MonkeyPatch, study) -> None:
    def too_late(url: str, **_: object) -> httpx.Response:
        raise httpx.ReadTimeout(url)

    monkeypatch.setattr(httpx, "head", too_late)
    address, page = serving(Scripted(toy_catalogue(study), tuned="", base=""))
    assert httpx.get(address).status_code == 200
    page.close(verbose=False)


def test_a_taken_port_is_one_line(address: str, study) -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:\d+: the app cannot listen there"):
        serving(Scripted(toy_catalogue(study), tuned="", base=""), port=int(address.rsplit(":", 1)[1]))


def test_listens_on_this_machine_only_and_to_its_own_name(address: str) -> None:
    assert address.startswith("http://127.0.0.1:")
    assert httpx.get(address, headers={"host": "rebound.example"}).status_code == 400
    for name in LOOPBACK:
        assert httpx.get(address, headers={"host": f"{name}:7860"}).status_code == 200


def test_a_forged_host_is_not_written_into_the_page(address: str) -> None:
    for header in ("x-forwarded-host", "x-gradio-server"):
        for value in ("http://evil.example", "evil.example", "[", "a b:c", ""):
            answer = httpx.get(f"{address}/config", headers={header: value})
            assert answer.status_code == 200 and "evil.example" not in answer.text
            assert answer.json()["root"] == address


def test_behind_a_proxy_its_host_is_the_address_if_it_is_a_host(study) -> None:
    page_of = Scripted(toy_catalogue(study), tuned="", base="")
    address, page = serving(page_of, host="0.0.0.0", login=(("ada", "pass word"),))
    try:
        with httpx.Client(base_url=address.replace("0.0.0.0", "127.0.0.1")) as session:
            session.post("/login", data={"username": "ada", "password": "pass word"})
            named = {"x-forwarded-host": "plans.example", "x-forwarded-proto": "https"}
            assert session.get("/config", headers=named).json()["root"] == "https://plans.example"
            for value in ("a b", "a.example/x?y", "[::"):
                root = session.get("/config", headers={"x-forwarded-host": value}).json()["root"]
                assert root == str(session.base_url).rstrip("/")
            assert session.get("/config", headers={"host": "a b"}).status_code == 400
    finally:
        page.close(verbose=False)


@pytest.mark.parametrize("stated", [True, False])
def test_long_requests_are_refused(address: str, stated: bool) -> None:
    body = b'{"data": ["' + b"x" * (MAX_BODY_BYTES + 400_000) + b'"]}'
    content = body if stated else (body[i : i + 65536] for i in range(0, len(body), 65536))
    try:
        answer = httpx.post(
            f"{address}/gradio_api/call/plan", content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code in (400, 413, 422)
        assert not stated or answer.json() == {"detail": "This request is too long (limit: 1 MiB)."}
    except httpx.HTTPError:  # the server disconnected
        assert not stated
    assert httpx.get(address).status_code == 200


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"weeks": 0}, "The weeks must be from 1 to 52, not 0."),
        ({"weeks": 60}, "The weeks must be from 1 to 52, not 60."),
        ({"weeks": "eight"}, "The weeks must be a number from 1 to 52."),
        ({"days": None}, "Please give the days per week as a number from 1 to 7."),
        ({"details": "é" * 100_000}, "This text has 100,000 characters (limit: 1,000)."),
        ({"details": "é" * 150_000}, "This text has 150,000 characters (limit: 1,000)."),
    ],
)
def test_bad_input_from_a_program_gets_a_sentence_and_no_traceback(address: str, bad: dict, sentence: str) -> None:
    client = client_of(address)
    with pytest.raises(gradio_client.exceptions.ValidationError) as caught:
        ask_plan(client, **bad)
    assert sentence in str(caught.value)
    assert "Traceback" not in str(caught.value) and ".py" not in str(caught.value)


def test_gradio_refuses_a_choice_that_is_not_in_the_list(address: str) -> None:
    functions = httpx.get(f"{address}/config").json()["dependencies"]
    (plan,) = (function["id"] for function in functions if function["api_name"] == "plan")
    joined = {"data": [*plan_inputs(race="100K"), None], "fn_index": plan, "session_hash": "x"}
    answer = httpx.post(f"{address}/gradio_api/queue/join", json=joined)
    assert answer.status_code == 400 and "100K is not in the list of choices" in answer.text
    assert "Traceback" not in answer.text and ".py" not in answer.text


def test_a_full_queue_refuses_further_requests_and_answers_its_own(study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_WAITING", 2)
    slow = Scripted(toy_catalogue(study), tuned=PLAN, base="", pause=0.2)
    address, page = serving(slow)
    try:
        client = client_of(address)
        jobs = [client.submit(*plan_inputs(), api_name="/plan") for _ in range(3)]
        while sum(job.status().code.name == "IN_QUEUE" for job in jobs) < 2:
            time.sleep(0.02)
        with pytest.raises(gradio_client.utils.QueueError, match="Queue is full"):
            ask_plan(client)
        slow.pause = 0.0
        for job in jobs:
            job.result(timeout=60)
            assert "Plan generated" in job.outputs()[-1][0]
    finally:
        page.close(verbose=False)


def test_the_queue_holds_its_limit_against_requests_at_once(study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_WAITING", 3)
    slow = Scripted(toy_catalogue(study), tuned=PLAN, base="", pause=2)
    address, page = serving(slow)
    try:
        functions = httpx.get(f"{address}config").json()["dependencies"]
        (plan,) = (function["id"] for function in functions if function["api_name"] == "plan")

        def join(number: int) -> int:
            joined = {"data": [*plan_inputs(), None], "fn_index": plan, "session_hash": f"s{number}"}
            return httpx.post(f"{address}gradio_api/queue/join", json=joined, timeout=60).status_code

        with ThreadPoolExecutor(24) as pool:
            statuses = list(pool.map(join, range(24)))
        # Those that wait, and at most one that is being answered already.
        assert 3 <= statuses.count(200) <= 4 and statuses.count(503) == 24 - statuses.count(200), statuses
        slow.pause = 0.0
    finally:
        page.close(verbose=False)


def test_the_page_shows_no_details_of_a_bug(
    study, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    class Broken(Answerer):
        def stream(self, *_, **__):
            raise RuntimeError(f"secret of {MARK}")

    address, page = serving(Broken(toy_catalogue(study)))
    try:
        with pytest.raises(Exception, match="Something went wrong") as caught:
            ask_plan(client_of(address))
        assert MARK not in str(caught.value)
        assert f"secret of {MARK}" in capfd.readouterr().err
    finally:
        page.close(verbose=False)


@pytest.mark.long
def test_fifty_concurrent_requests_get_their_own_answers(address: str, answerer: Answerer) -> None:
    base, tuned, _ = answerer.catalogue.subjects
    expected = {
        seed: [list(answerer.stream(subject, "Hello", Sampling(seed, 1.0, 16)))[-1] for subject in (base, tuned)]
        for seed in range(50)
    }
    assert len({tuple(answer.text for answer in answers) for answers in expected.values()}) == 50
    clients = [client_of(address) for _ in range(10)]

    def ask(seed: int) -> list[tuple]:
        inputs = ["Hello", seed, 1.0, 16, base.name, tuned.name, NO_MODEL]
        job = clients[seed % 10].submit(*inputs, api_name="/compare")
        job.result(timeout=120)
        return job.outputs()

    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(ask, range(50)))
    for seed, outputs in enumerate(found):
        assert f"2 answers, seed {seed}<" in outputs[-1][0]
        texts = [[o[i] for o in outputs if isinstance(o[i], str)][-1] for i in (1, 2)]
        assert texts == [visible(answer.text) for answer in expected[seed]]


def test_a_stopped_request_ends_and_the_next_one_is_answered(study) -> None:
    slow = Scripted(toy_catalogue(study), tuned=PLAN * 5, base="", pause=0.2)
    address, page = serving(slow)
    try:
        client = client_of(address)
        job = client.submit(*plan_inputs(), api_name="/plan")
        waiting = client.submit(*plan_inputs(), api_name="/plan")
        while not (job.outputs() or waiting.outputs()):
            time.sleep(0.05)
        stop = next(index for index, event in page.fns.items() if event.name == "stop")
        pressed = {"data": [], "fn_index": stop, "session_hash": client.session_hash}
        assert httpx.post(f"{address}gradio_api/run/predict", json=pressed).status_code == 200
        start = time.monotonic()
        for one in (job, waiting):
            one.result(timeout=20)
        assert time.monotonic() - start < 10 and slow.stopped == 2
        slow.pause = 0.0
        assert "Plan generated" in ask_plan(client)[0]
    finally:
        page.close(verbose=False)


def test_nothing_is_written_to_disk(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(Path(tempfile.gettempdir()).glob("gradio*/**/*"))
    ask_plan(client_of(address), name=MARK, details=MARK)
    assert list(tmp_path.iterdir()) == []
    new = set(Path(tempfile.gettempdir()).glob("gradio*/**/*")) - before
    assert not [path for path in new if path.is_file()]


def test_behind_a_login(study) -> None:
    address, page = serving(Scripted(toy_catalogue(study), tuned=PLAN, base=""), login=(("ada", "pass word"),))
    try:
        for path in ("gradio_api/info", "config"):
            assert httpx.get(f"{address}{path}").status_code == 401
        assert "Your plan" not in httpx.get(address).text and "learning rate 0.02" not in httpx.get(address).text
        with pytest.raises(ValueError, match="credentials were not provided"):
            client_of(address)
        with httpx.Client() as session:
            assert session.post(f"{address}login", data={"username": "ada", "password": "wrong"}).status_code == 400
            session.post(f"{address}login", data={"username": "ada", "password": "pass word"})
            assert session.get(f"{address}config").status_code == 200
        assert "Plan generated" in ask_plan(client_of(address, auth=("ada", "pass word")))[0]
    finally:
        page.close(verbose=False)
