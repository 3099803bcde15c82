"""The Plan tab in a real browser: fill in, generate, switch the base, download, stop, invalid input, two users."""

from datetime import timedelta
from pathlib import Path

from icalendar import Calendar

from loragrid.app.answering import MAX_NEW_TOKENS, Answerer, Sampling
from loragrid.app.catalogue import AppModel
from loragrid.app.request_handling import CancelEvents
from loragrid.app.running_plan_tab import FIRST_SEED, TEMPERATURE, RunningPlanTab
from loragrid.formatting import visible
from tests.fixtures.app_pages import BASE_PLAN, fill, open_page, shown, write
from tests.fixtures.app_toys import PLAN, serving, toy_catalogue


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
    """The downloads hold what the page shows."""
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
    switch = page.get_by_label("Show the base's answer beside it")
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
    page.wait_for_selector("text=The plan is incomplete")
    assert shown(page, "tuned").startswith(first) and len(shown(page, "tuned")) < len(PLAN * 3)
    assert not page.locator("#base_line .adherence").count()


def test_invalid_input_gets_a_sentence_beside_its_field(browser, served) -> None:
    page, _ = open_page(browser, served[0])
    fill(page, weeks=60, days=2.5)
    page.click("text=More details")
    page.get_by_label("Anything else").fill("é" * 100_000)
    page.click("#write")
    for label, sentence in (
        ("Weeks", "The weeks must be from 1 to 52, not 60."),
        ("Days per week", "The days per week must be a whole number from 1 to 7."),
        ("Anything else", "This text has 100,000 characters (limit: 1,000)."),
    ):
        page.wait_for_selector(f"text={sentence}")
        field, note = page.get_by_label(label).bounding_box(), page.get_by_text(sentence).first.bounding_box()
        assert 0 < field["y"] - note["y"] < 110 and abs(field["x"] - note["x"]) < 30
    assert shown(page, "tuned") == ""
    page.wait_for_selector("#status >> text=✗ No plan was written: The weeks must be from 1 to 52, not 60.")
    page.get_by_label("Weeks").fill("")
    page.click("#write")
    page.wait_for_selector("text=Please give the weeks as a number from 1 to 52.")
    page.get_by_label("Anything else").fill("x" * 1_100_000)
    page.click("#write")
    page.wait_for_selector("text=This request is too long (limit: 1 MiB).")
    page.get_by_label("Anything else").fill("🏃 ok")
    fill(page)
    write(page)
    assert "must be" not in page.inner_text("body") and "🏃 ok" in page.inner_text("#summary")


def test_a_prompt_that_is_too_long_is_refused(browser, study) -> None:
    address, served = serving(Answerer(toy_catalogue(study)))
    try:
        page, _ = open_page(browser, address)
        page.click("text=More details")
        page.get_by_label("Anything else").fill("x" * 900)
        page.click("#write")
        page.wait_for_selector("#status >> text=this model reads at most 496. Please shorten it.")
        page.get_by_label("Anything else").fill("x")
        write(page)
        assert shown(page, "tuned") and "shorten" not in page.inner_text("#status")
    finally:
        served.close(verbose=False)


def test_two_concurrent_users_see_their_own_plans(browser, study) -> None:
    answerer = Answerer(toy_catalogue(study))
    tab = RunningPlanTab(answerer, CancelEvents())

    def alone(subject: AppModel, request: str) -> str:
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
