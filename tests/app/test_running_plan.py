"""The running-plan form's errors, the prompt, the adherence, and the downloads."""

from dataclasses import replace
from datetime import date

import pytest
from icalendar import Calendar

from loragrid.app.running_plan_files import as_calendar, as_markdown, as_text, links_html, next_monday, start_error
from loragrid.app.running_plan_form import FIELDS, RunningPlanForm, form_errors, form_prompt, read_form
from loragrid.app.running_plan_html import adherence_html, measure_adherence, summary_html, table_html
from tests.fixtures.app_toys import HOSTILE, PLAN

GOOD = {
    "name": "Ada",
    "race": "10K",
    "level": "beginner",
    "weeks": 2,
    "days_per_week": 3,
    "target_time": "",
    "long_run_day": "Sunday",
    "injuries": "",
    "details": "",
}
FORM = read_form(GOOD)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("weeks", 0, "The weeks must be from 1 to 52, not 0."),
        ("weeks", 60, "The weeks must be from 1 to 52, not 60."),
        ("weeks", -3, "The weeks must be from 1 to 52, not -3."),
        ("weeks", 1e308, "The weeks must be from 1 to 52, not "),
        ("weeks", None, "Please give the weeks as a number from 1 to 52."),
        ("weeks", "", "Please give the weeks as a number from 1 to 52."),
        ("weeks", "eight", "The weeks must be a number from 1 to 52."),
        ("weeks", float("nan"), "The weeks must be a number from 1 to 52."),
        ("weeks", True, "The weeks must be a number from 1 to 52."),
        ("weeks", [3], "The weeks must be a number from 1 to 52."),
        ("days_per_week", 2.5, "The days per week must be a whole number from 1 to 7."),
        ("days_per_week", 8, "The days per week must be from 1 to 7, not 8."),
        ("details", "x" * 100_000, "This text has 100,000 characters (limit: 1,000)."),
        ("name", "x" * 61, "This text has 61 characters (limit: 60)."),
        ("injuries", 5, "This must be text."),
        ("race", None, "Please choose the race from the list."),
        ("level", "elite", "Please choose the level from the list."),
        ("long_run_day", "Someday", "Please choose the long-run day from the list."),
    ],
)
def test_bad_input_gets_one_sentence_for_its_field(field: str, value: object, sentence: str) -> None:
    found = form_errors(GOOD | {field: value})
    assert list(found) == [field] and found[field].startswith(sentence)


@pytest.mark.parametrize("text", ["", None, "🏃‍♀️ ñ 跑步", "<script>alert(1)</script>", "a\n\nb"])
def test_any_short_text_will_do(text: str | None) -> None:
    assert form_errors(GOOD | dict.fromkeys(("name", "target_time", "injuries", "details"), text)) == {}


def test_form_is_trimmed() -> None:
    form = read_form(GOOD | {"name": "  Ada \n L. ", "weeks": 8.0, "long_run_day": None, "details": None})
    assert (form.name, form.weeks, form.long_run_day, form.details) == ("Ada L.", 8, "any day", "")
    assert tuple(vars(form)) == FIELDS


def test_the_demo_gets_a_training_wording_without_the_name() -> None:
    prompt = form_prompt(FORM, taught=True)
    assert prompt == "Write 2 weeks of training for a 10K. I am beginner and can run 3 days a week. Long run on Sunday."


def test_other_models_get_every_wish_and_a_layout() -> None:
    form = replace(FORM, target_time="52:00", injuries="left knee", details="No mornings.")
    prompt = form_prompt(form, taught=False)
    for part in ("10K", "beginner", "exactly 2 weeks", "exactly 3 running days", "Sunday", "52:00", "left knee"):
        assert part in prompt
    assert "No mornings." in prompt and '"Week 1:"' in prompt and "Ada" not in prompt


@pytest.mark.parametrize(
    ("weeks", "days", "sentence"),
    [
        (2, 3, "✓ asked 2 weeks × 3 days, got 2 weeks × 3 days"),
        (8, 5, "✗ asked 8 weeks × 5 days, got 2 weeks × 3 days"),
        (2, 4, "✗ asked 2 weeks × 4 days, got 2 weeks × 3 days"),
        (1, 1, "✗ asked 1 week × 1 day, got 2 weeks × 3 days"),
    ],
)
def test_adherence_names_the_requested_and_the_written_size(weeks: int, days: int, sentence: str) -> None:
    assert measure_adherence(replace(FORM, weeks=weeks, days_per_week=days), PLAN).sentence == sentence


def test_text_without_a_plan_gets_sentences_instead() -> None:
    assert (
        measure_adherence(FORM, "I cannot help.").sentence
        == "✗ asked 2 weeks × 3 days, no plan can be read from this text"
    )
    assert "no table" in table_html("I cannot help.")
    assert as_calendar(FORM, "I cannot help.", date(2027, 3, 1)) == b""
    assert "no calendar file" in links_html(FORM, "I cannot help.", date(2027, 3, 1))


def test_pages_escape_what_models_and_users_write() -> None:
    hostile = replace(FORM, name="<b>x</b>", details="<script>1</script>\u202e")
    pages = [table_html(HOSTILE), summary_html(hostile, HOSTILE), adherence_html(measure_adherence(hostile, HOSTILE))]
    for page in pages:
        assert "<script" not in page and "<img" not in page and "<b>" not in page and "\u202e" not in page
    assert "&lt;script&gt;" in pages[0] and "[U+202E]" in pages[1]


def test_table_has_weeks_down_and_days_across() -> None:
    page = table_html(PLAN)
    assert page.index(">Tue<") < page.index(">Thu<") < page.index(">Sun<")
    assert '<th scope="row">2</th><td>easy 4</td><td>steady 3</td><td>long 7</td>' in page


def test_text_and_markdown_hold_the_plan() -> None:
    text = as_text(FORM, PLAN)
    assert text.startswith("10K plan for Ada\n") and PLAN in text and "✓ asked 2 weeks" in text
    markdown = as_markdown(FORM, PLAN)
    assert "| 2 | easy 4 | steady 3 | long 7 |" in markdown and f"```text\n{PLAN}\n```" in markdown


def test_markdown_in_a_models_text_stays_text() -> None:
    markdown = as_markdown(replace(FORM, name="[x](y)"), "Week 1: Tue [easy](http://x) 4\n````\n# out")
    assert "\n`````text\n" in markdown and r"\[x\]\(y\)" in markdown
    row = next(line for line in markdown.splitlines() if line.startswith("| 1 |"))
    assert r"\[easy\]\(http" in row


@pytest.mark.parametrize(
    ("start", "first"), [(date(2027, 3, 1), ["0302", "0304", "0307"]), (date(2027, 3, 5), ["0307", "0309", "0311"])]
)
def test_calendar_puts_weekdays_into_the_weeks_from_the_start(start: date, first: list[str]) -> None:
    calendar = Calendar.from_ical(as_calendar(FORM, PLAN, start))
    days = sorted(event.decoded("dtstart") for event in calendar.events)
    assert [f"{day:%m%d}" for day in days[:3]] == first
    assert len(days) == 6 and all((day - start).days // 7 == i // 3 for i, day in enumerate(days))
    assert {str(event["summary"]) for event in calendar.events} >= {"long 7 (week 2)", "easy 4 (week 1)"}
    assert len({str(event["uid"]) for event in calendar.events}) == 6


def test_calendar_of_numbered_and_unnamed_days_leaves_rest_out() -> None:
    numbered = "Week 1\nDay 1: easy run 5 km\nDay 2: rest\nDay 4: long run 9 km"
    days = [e.decoded("dtstart").day for e in Calendar.from_ical(as_calendar(FORM, numbered, date(2027, 3, 1))).events]
    assert days == [1, 4]
    unnamed = "Week 1\n- easy run 5 km\n- tempo run 4 km\n- long run 9 km"
    days = [e.decoded("dtstart").day for e in Calendar.from_ical(as_calendar(FORM, unnamed, date(2027, 3, 1))).events]
    assert days == [1, 3, 5]


@pytest.mark.parametrize("value", [None, "", "soon", "2027-13-01", "0001-01-01", "9999-12-31", 5])
def test_bad_start_dates_get_a_sentence(value: object) -> None:
    assert start_error(value).endswith(".")


def test_next_monday_is_ahead() -> None:
    assert next_monday(date(2026, 11, 23)) == date(2026, 11, 30)
    assert next_monday(date(2026, 11, 29)) == date(2026, 11, 30)
    assert start_error("2026-11-30") == ""


def test_form_type_is_what_the_page_fills() -> None:
    assert isinstance(FORM, RunningPlanForm) and (FORM.weeks, FORM.days_per_week) == (2, 3)


def test_calendar_ids_are_those_of_one_request_and_say_nothing_of_a_person() -> None:
    def ids(form: RunningPlanForm = FORM, start: date = date(2027, 3, 1)) -> set[str]:
        return {str(event["uid"]) for event in Calendar.from_ical(as_calendar(form, PLAN, start)).events}

    assert ids() == ids()
    others = (ids(replace(FORM, name="Zoe")), ids(replace(FORM, weeks=FORM.weeks + 1)), ids(start=date(2027, 3, 8)))
    for other in others:
        assert len(other) == 6 and not other & ids()
    assert not any("zoe" in uid.lower() for uid in others[0])


@pytest.mark.parametrize("mark", ["\r", "\r\n", "\n", "\x0b", "\x0c", "\x00", "\x1b", "\x85", "\u2028", "\u2029"])
def test_no_text_can_add_a_line_to_the_calendar(mark: str) -> None:
    evil = f"x{mark}ATTACH:http://evil.example{mark}END:VEVENT"
    plan = f"Week 1: Tue easy 4 {evil}, Sun long, 6; \\n km"
    content = as_calendar(replace(FORM, name=evil), plan, date(2027, 3, 1))
    lines = content.decode().replace("\r\n ", "").split("\r\n")
    assert not [line for line in lines if line.startswith("ATTACH") or not line.isprintable()]
    assert lines.count("END:VEVENT") == len(Calendar.from_ical(content).events) >= 1
    assert all(len(line.encode()) <= 75 for line in content.decode().split("\r\n"))
