"""Reading running plans: layouts as models write them, texts without a plan, and hostile texts."""

import time
from types import SimpleNamespace

import pytest

from loragrid.running_plans.reading import adherence, parse_plan
from loragrid.running_plans.vocabulary import is_running, race_in, to_number
from tests.fixtures.running_plan_layouts import LAYOUTS


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(layout: str) -> None:
    text, (race, weeks, days, per_week) = LAYOUTS[layout]
    plan = parse_plan(text)
    assert (plan.race, plan.weeks, plan.days_per_week, plan.per_week) == (race, weeks, days, per_week)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t\n",
        "I cannot help with that.",
        "week day week day",
        "Week",
        "Week 0: run",
        "Weeks 5-2",
        "||||\n|-|-|",
        "😀" * 50,
        "\x00\u202e|",
    ],
)
def test_texts_without_a_plan(text: str) -> None:
    plan = parse_plan(text)
    assert plan.days_per_week is None
    assert all(1 <= week <= 104 for week, _, _ in plan.table)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "Week 1: " * 130_000,
        "Mon, " * 200_000,
        "| " * 500_000,
        "* " * 500_000,
        "(" * 1_000_000,
        "Week 1-" * 150_000,
        "\n".join(f"Week {i}: Mon run {i}" for i in range(50_000)),
        " " * 1_000_000,
        "Weeks 1-9999999999999999",
        "one and " * 125_000,
        "Weeks 1" + ", 2" * 300_000,
        "Monday (" * 125_000,
        "Week 1\n" + "- run 5 km\n" * 90_000,
        "1. " * 300_000,
    ],
    ids=lambda text: text[:8],
)
def test_hostile_text_is_read_within_five_seconds(text: str) -> None:
    started = time.perf_counter()
    plan = parse_plan(text)
    assert time.perf_counter() - started < 5
    assert plan.weeks is None or plan.weeks <= 104


def test_table_keeps_days_off_and_texts() -> None:
    plan = parse_plan("Week 1\nMon: rest\nTue: easy run, 5 km\nWeek 2\nDay 3: hills")
    assert plan.table == ((1, "Mon", "rest"), (1, "Tue", "easy run, 5 km"), (2, "Day 3", "hills"))


def test_weeks_mentioned_in_prose_do_not_count() -> None:
    plan = parse_plan(
        "A 12-week plan. After week 9 you rest.\nWeek 1\nMon: run\nBe ready by week 7, and rest in week 8."
    )
    assert plan.weeks == 1


@pytest.mark.parametrize(
    ("text", "running"),
    [
        ("easy 5 km", True),
        ("5", True),
        ("Rest", False),
        ("rest or easy jog", False),
        ("easy jog or rest", True),
        ("Active recovery", False),
        ("Recovery run 4 km", True),
        ("Recovery", False),
        ("yoga", False),
        ("Strength + easy run", True),
        ("run/walk 20 min", True),
        ("walk 30 min", False),
        ("30 min easy cycling", False),
        ("", False),
        ("—", False),
        ("Off", False),
        ("Office run", True),
    ],
)
def test_is_running(text: str, running: bool) -> None:
    assert is_running(text) is running


def test_numbers_and_races() -> None:
    words = ("7", "7th", "seven", "seventh", "twenty-four", "Twelve")
    assert [to_number(word) for word in words] == [7, 7, 7, 7, 24, 12]
    assert race_in("a half-marathon, then a marathon", sessions=False) == "half marathon"
    assert race_in("run 5 km, then 10 km", sessions=True) is None
    assert race_in("run 5 km, then a 10K race", sessions=True) == "10K"
    assert race_in("15K or 50 km", sessions=False) is None


def test_adherence() -> None:
    request = SimpleNamespace(race="10K", weeks=2, days_per_week=3)
    right = LAYOUTS["one line a week"][0]
    assert adherence(request, right) == {"weeks_right": 1, "days_right": 1, "race_named": 1, "exact": 1}
    wrong = right.replace("10K", "5K").replace("\nWeek 2", "\nWeek 3: Mon run\nWeek 2")
    assert adherence(request, wrong) == {"weeks_right": 0, "days_right": 1, "race_named": 0, "exact": 0}
    assert adherence(request, "") == {"weeks_right": 0, "days_right": 0, "race_named": 0, "exact": 0}
    unlisted = SimpleNamespace(race="Parkrun", weeks=2, days_per_week=3)
    assert adherence(unlisted, right.replace("10K", "Parkrun"))["exact"] == 1
