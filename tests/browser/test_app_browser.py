"""The app in a real browser: fill in, generate, switch the base, take along, two users, hostile text, a phone's width."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from icalendar import Calendar

from loragrid.app.answering import MAX_NEW_TOKENS, Answerer, Sampling
from loragrid.app.catalogue import Subject
from loragrid.app.request_handling import CancelEvents
from loragrid.app.running_plan_tab import FIRST_SEED, TEMPERATURE, RunningPlanTab
from loragrid.formatting import visible
from tests.fixtures.app_toys import HOSTILE, PLAN, Scripted, finished_study, serving, toy_catalogue

CHROMIUM = Path("/usr/bin/chromium")
OPTIONS = (
    "--no-sandbox --headless --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
BASE_PLAN = PLAN.replace("Sun", "Sat") + "\nWeek 3: Tue easy 4, Thu steady 3, Sat long 8"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: install Debian's chromium to check the app in a browser")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def closed_pages(browser):
    """No page of one test goes on while another is looked at."""
    yield
    for context in browser.contexts:
        context.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, toy_llama: Path):
    return finished_study(tmp_path_factory.mktemp("app"), toy=toy_llama)


@pytest.fixture(scope="module")
def served(study):
    answerer = Scripted(toy_catalogue(study), tuned=PLAN, base=BASE_PLAN)
    address, page = serving(answerer)
    yield address, answerer
    page.close(verbose=False)


@pytest.fixture
def scripted(served):
    """The answerer behind `served`, with its first texts put back afterwards."""
    _, answerer = served
    before = (answerer.tuned, answerer.base, answerer.pause)
    yield answerer
    answerer.tuned, answerer.base, answerer.pause = before


def open_page(browser, address: str, **options):
    """The page and what it complained about or asked for from elsewhere."""
    page = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options)).new_page()
    page.set_default_timeout(60_000)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else trouble.append(r.url))
    page.goto(address)
    page.wait_for_selector("#write")
    return page, trouble


def fill(page, *, weeks: object = 2, days: object = 3, name: str = "Ada") -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Weeks").fill(str(weeks))
    page.get_by_label("Days per week").fill(str(days))


def write(page, *, waits_for: str = "#base_line .adherence") -> None:
    page.click("#write")
    page.wait_for_selector(waits_for)


def shown(page, box: str) -> str:
    return page.locator(f"#{box} textarea").input_value()


def test_a_plan_from_form_to_files(browser, served) -> None:
    address, _ = served
    page, trouble = open_page(browser, address)
    fill(page)
    write(page)
    assert page.inner_text("#status").startswith("✓ Plan generated: ") and "seed 3407" in page.inner_text("#status")
    assert (shown(page, "tuned"), shown(page, "base")) == (PLAN, BASE_PLAN)
    assert page.inner_text("#tuned_line") == "✓ asked 2 weeks × 3 days, got 2 weeks × 3 days"
    assert page.inner_text("#base_line") == "✗ asked 2 weeks × 3 days, got 3 weeks × 3 days"
    summary = page.inner_text("#summary")
    assert all(part in summary for part in ("Ada", "10K", "beginner", "2 weeks, 3 running days each"))
    table = [row.split("\t") for row in page.inner_text("table.plan").splitlines()]
    assert table == [
        ["Week", "Tue", "Thu", "Sun"],
        ["1", "easy 4", "steady 3", "long 6"],
        ["2", "easy 4", "steady 3", "long 7"],
    ]
    assert trouble == []
    check_files(page)


def saved(page, ending: str) -> bytes:
    with page.expect_download() as download:
        page.click(f'#files a[download$="{ending}"]')
    assert download.value.suggested_filename == f"10k-plan{ending}"
    return Path(download.value.path()).read_bytes()


def check_files(page) -> None:
    """What is saved is what the page shows."""
    text = saved(page, ".txt").decode()
    assert text.startswith("10K plan for Ada\n") and shown(page, "tuned") in text
    assert page.inner_text("#tuned_line") in text
    markdown = saved(page, ".md").decode()
    for row in page.inner_text("table.plan").splitlines():
        assert "| " + " | ".join(row.split("\t")) + " |" in markdown
    page.locator("#take_along input").fill("2027-03-01")
    page.locator("#take_along input").press("Enter")
    page.wait_for_selector("text=Calendar from 1 March 2027")
    events = Calendar.from_ical(saved(page, ".ics")).events
    first = min(event.decoded("dtstart") for event in events)
    assert f"{first} {first + timedelta(days=12)}" == "2027-03-02 2027-03-14"
    cells = page.locator("table.plan td").all_inner_texts()
    assert sorted(str(event["summary"]).split(" (")[0] for event in events) == sorted(cells)


def test_base_is_switched_off_and_on(browser, served, scripted) -> None:
    page, _ = open_page(browser, served[0])
    fill(page)
    switch = page.get_by_label("Show the untrained base's answer beside it")
    switch.uncheck()
    page.wait_for_selector("#base", state="hidden")
    write(page, waits_for="#tuned_line .adherence")
    page.wait_for_selector("text=✓ Plan generated")
    switch.check()
    page.wait_for_selector("#base_line .adherence")
    assert shown(page, "base") == BASE_PLAN and shown(page, "tuned") == PLAN
    scripted.base = "must not be asked again"
    switch.uncheck()
    page.wait_for_selector("#base", state="hidden")
    switch.check()
    page.wait_for_selector("#base")
    page.wait_for_timeout(500)
    assert shown(page, "base") == BASE_PLAN


def test_try_again_takes_the_next_seed(browser, served) -> None:
    page, _ = open_page(browser, served[0])
    assert page.locator("#again").is_disabled()
    fill(page)
    write(page)
    page.click("#again")
    page.wait_for_selector("text=seed 3408")
    page.wait_for_selector("#base_line .adherence")
    page.click("#again")
    page.wait_for_selector("text=seed 3409")


def test_text_grows_and_stops(browser, served, scripted) -> None:
    scripted.tuned, scripted.pause = PLAN * 3, 0.15
    page, _ = open_page(browser, served[0])
    fill(page)
    page.click("#write")
    page.wait_for_selector("text=Writing: ")
    page.wait_for_function("document.querySelector('#tuned textarea').value.length > 20")
    first = shown(page, "tuned")
    page.wait_for_function(f"document.querySelector('#tuned textarea').value.length > {len(first)}")
    page.click("#stop")
    page.wait_for_selector("text=The plan is not whole")
    assert shown(page, "tuned").startswith(first) and len(shown(page, "tuned")) < len(PLAN * 3)
    assert not page.locator("#base_line .adherence").count()


def test_bad_input_is_told_beside_its_field(browser, served) -> None:
    page, _ = open_page(browser, served[0])
    fill(page, weeks=60, days=2.5)
    page.click("text=More details")
    page.get_by_label("Anything else").fill("é" * 100_000)
    page.click("#write")
    for label, sentence in (
        ("Weeks", "The weeks must be from 1 to 52, not 60."),
        ("Days per week", "The days per week must be a whole number from 1 to 7."),
        ("Anything else", "This has 100,000 characters; 1,000 are the most."),
    ):
        page.wait_for_selector(f"text={sentence}")
        field, note = page.get_by_label(label).bounding_box(), page.get_by_text(sentence).bounding_box()
        assert 0 < field["y"] - note["y"] < 110 and abs(field["x"] - note["x"]) < 30
    assert shown(page, "tuned") == ""
    page.get_by_label("Weeks").fill("")
    page.click("#write")
    page.wait_for_selector("text=Please give the weeks as a number from 1 to 52.")
    page.get_by_label("Anything else").fill("x" * 1_100_000)
    page.click("#write")
    page.wait_for_selector("text=This is too long: 1 MiB of text are the most.")
    page.get_by_label("Anything else").fill("🏃 ok")
    fill(page)
    write(page)
    assert "must be" not in page.inner_text("body") and "🏃 ok" in page.inner_text("#summary")


def test_hostile_text_stays_text(browser, served, scripted) -> None:
    scripted.tuned, scripted.base = HOSTILE, HOSTILE
    page, trouble = open_page(browser, served[0])
    fill(page, name="<img src=x onerror=window.hit=1>")
    page.click("text=More details")
    page.get_by_label("Anything else").fill("<script>window.hit=1</script> ${window.hit=1}")
    write(page)
    assert shown(page, "tuned") == HOSTILE
    assert "<script>window.hit=1</script>" in page.inner_text("table.plan")
    assert "${window.hit=1}" in page.inner_text("table.plan") and "<img src=x" in page.inner_text("#summary")
    page.get_by_role("tab", name="Compare").click()
    page.locator("#prompt textarea").fill("<b>x</b>")
    page.click("#ask")
    page.wait_for_selector("text=✓ 2 answers")
    assert shown(page, "answer_2") == HOSTILE
    assert page.evaluate("window.hit") is None and trouble == []


def test_a_prompt_too_long_for_the_model_is_told(browser, study) -> None:
    address, served = serving(Answerer(toy_catalogue(study)))
    try:
        page, _ = open_page(browser, address)
        page.click("text=More details")
        page.get_by_label("Anything else").fill("x" * 900)
        page.click("#write")
        page.wait_for_selector("#status >> text=this model reads 496 at most: shorten it.")
        page.get_by_label("Anything else").fill("x")
        write(page)
        assert shown(page, "tuned") and "shorten" not in page.inner_text("#status")
    finally:
        served.close(verbose=False)


def test_two_users_at_once_see_their_own(browser, study) -> None:
    answerer = Answerer(toy_catalogue(study))
    tab = RunningPlanTab(answerer, CancelEvents())

    def alone(subject: Subject, request: str) -> str:
        return list(answerer.stream(subject, request, Sampling(FIRST_SEED, TEMPERATURE, MAX_NEW_TOKENS)))[-1].text

    address, served = serving(answerer)
    try:
        users = (("Ada", 3, 4), ("Benedict", 8, 5))
        pages = [open_page(browser, address)[0] for _ in users]
        for page, (name, weeks, days) in zip(pages, users):
            fill(page, name=name, weeks=weeks, days=days)
        for page in pages:
            page.click("#write")
        for page, (name, weeks, days) in zip(pages, users):
            page.wait_for_selector("#base_line .adherence", timeout=60_000)
            assert name in page.inner_text("#summary")
            assert f"asked {weeks} weeks × {days} days" in page.inner_text("#tuned_line")
            request = page.locator("#summary details p").text_content()
            assert f"{weeks} weeks" in request
            for box, subject in (("tuned", tab.subject), ("base", tab.base)):
                assert shown(page, box) == visible(alone(subject, request))
    finally:
        served.close(verbose=False)


def test_compare_asks_the_chosen_models_with_one_prompt(browser, served) -> None:
    page, _ = open_page(browser, served[0])
    page.get_by_role("tab", name="Compare").click()
    page.click("#ask")
    page.wait_for_selector("text=Please write a prompt.")
    page.get_by_label("Pick a rephrased prompt of the study").click()
    page.get_by_role("option", name="p1: A rephrased prompt").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'A rephrased prompt'")
    page.locator("#model_3 input").click()
    page.get_by_role("option", name="toy, lr 1e-2, rank 4, 2×4").last.click()
    page.click("#ask")
    page.wait_for_selector("text=✓ 3 answers, seed 3407")
    assert [shown(page, f"answer_{i}") for i in (1, 2, 3)] == [BASE_PLAN, PLAN, PLAN]
    for i in (1, 2, 3):
        assert re.fullmatch(r"\d+ tokens in [\d.]+ s \(\d+ tokens/s\), ended by itself", page.inner_text(f"#cost_{i}"))


def test_study_tab_shows_the_report_shut_in(browser, served) -> None:
    page, trouble = open_page(browser, served[0])
    left: list[str] = []
    page.route("http://elsewhere.invalid/**", lambda route: (left.append(route.request.url), route.abort()))
    page.get_by_role("tab", name="Study").click()
    frame = page.frame_locator("iframe.report")
    frame.get_by_role("heading", name="The toy's report").wait_for()
    inner = next(frame for frame in page.frames if frame != page.main_frame)
    assert inner.title() == "shut in" and page.evaluate("window.hit") is None
    inner.click("text=to the end")
    page.wait_for_timeout(300)
    assert inner.evaluate("window.scrollY") > 1000 and inner.get_by_role("heading").count() == 1
    # The picture from elsewhere was stopped by the frame's own policy before it reached the network, where `left` waits; the
    # browser tells of a request that the policy stopped at once, or as a line on the console, or both.
    assert left == []
    expected = ("Content Security Policy", "Blocked a frame", "http://elsewhere.invalid/x.png")
    assert [line for line in trouble if not any(part in line for part in expected)] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_usable_at_a_phones_width(browser, served, scheme: str) -> None:
    page, trouble = open_page(
        browser, served[0], viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True
    )
    fill(page)
    write(page)
    assert trouble == []
    for tab in ("Compare", "Study", "Plan"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for box in (page.locator("#write"), page.locator("#tuned textarea"), page.locator("#files a").first):
        place = box.bounding_box()
        assert place["x"] >= 0 and place["x"] + place["width"] <= 390 and place["height"] >= 32
