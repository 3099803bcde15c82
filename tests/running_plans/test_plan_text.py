"""The parser of running plans, on layouts as models write them and on texts that are no plans."""

import time
from types import SimpleNamespace

import pytest

from loragrid.running_plans.reading import adherence, parse_plan
from loragrid.running_plans.vocabulary import is_running, race_in, to_number

LAYOUTS = {
    "one line a week": (
        "10K plan, beginner, in km\n"
        "Week 1: Tue easy 4, Thu steady 3, Sun long 6\n"
        "Week 2: Tue easy 4, Thu steady 3, Sun long 5",
        ("10K", 2, 3, (3, 3)),
    ),
    "day lines": (
        "Marathon plan\n"
        "Week 1:\n"
        "Day 1: easy run 5 km\n"
        "Day 2: tempo 4 km\n"
        "Week 2:\n"
        "Day 1: easy run 6 km\n"
        "Day 2: long run 12 km",
        ("marathon", 2, 2, (2, 2)),
    ),
    "markdown with rest days": (
        "# 8-Week Half Marathon Plan\n"
        "\n"
        "This 8-week plan is for you.\n"
        "\n"
        "## Week 1: Base\n"
        "- **Monday:** Rest\n"
        "- **Tuesday:** 5K easy run\n"
        "- **Wednesday:** Cross-training (30 min bike)\n"
        "- **Thursday:** 4 x 400 m intervals\n"
        "- **Friday:** Off\n"
        "- **Saturday:** Yoga\n"
        "- **Sunday:** 10K long run\n"
        "\n"
        "## Week 2: Build\n"
        "* **Monday** – Rest\n"
        "* **Tuesday** – 6 km easy\n"
        "* **Thursday** – tempo 5 km\n"
        "* **Sunday** – long 12 km\n"
        "\n"
        "**Tips:**\n"
        "- Rest well on Monday.\n"
        "- Week by week, listen to your body.\n",
        ("half marathon", 2, 3, (3, 3)),
    ),
    "week ranges": (
        "Your 5K plan\n"
        "\n"
        "**Weeks 1-2**\n"
        "- Mon: 2 km jog\n"
        "- Wed: 3 km jog\n"
        "\n"
        "**Weeks 3 and 4**\n"
        "- Mon: 3 km jog\n"
        "- Wed: 4 km jog\n"
        "- Fri: walk 30 min",
        ("5K", 4, 2, (2, 2, 2, 2)),
    ),
    "days across": (
        "| Week | Mon | Tue | Wed | Thu | Fri | Sat | Sun |\n"
        "|---|---|---|---|---|---|---|---|\n"
        "| 1 | Rest | 3 km | – | 4 km | | Strength | 6 km |\n"
        "| 2 | Rest | 3 km | Rest | 5 km | Rest | 2 km | 8 km |\n"
        "| 3 | Rest | 3 km | Rest | 5 km | Rest | Yoga | 8 km |\n"
        "\n"
        "Good luck with your first 10K race!",
        ("10K", 3, 3, (3, 4, 3)),
    ),
    "weeks across": (
        "5 km race plan\n"
        "| Day | Week 1 | Week 2 |\n"
        "|:-|:-:|-:|\n"
        "| Monday | easy 3 km | easy 4 km |\n"
        "| Wednesday | rest | easy 2 km |\n"
        "| Sunday | long 5 km | long 6 km |",
        ("5K", 2, 2, (2, 3)),
    ),
    "a row a day": (
        "Half-marathon schedule\n"
        "| Week | Day | Workout |\n"
        "|---|---|---|\n"
        "| 1 | 1 | easy 5 km |\n"
        "|   | 2 | tempo 4 km |\n"
        "|   | 3 | Rest |\n"
        "| 2 | 1 | easy 6 km |\n"
        "| | 2 | long 14 km |",
        ("half marathon", 2, 2, (2, 2)),
    ),
    "table under each week": (
        "Training for a marathon\n"
        "### Week 1\n"
        "| Day | Workout |\n"
        "|---|---|\n"
        "| Tuesday | Easy 8 km |\n"
        "| Saturday | Long 20 km |\n"
        "### Week 2\n"
        "| Day | Workout |\n"
        "|---|---|\n"
        "| Tuesday | Easy 9 km |\n"
        "| Saturday | Long 22 km |",
        ("marathon", 2, 2, (2, 2)),
    ),
    "numbers as words": (
        "Ten kilometre goal: your plan\n"
        "Week one - Day one: easy jog. Day two: hills.\n"
        "Week two - Day one: easy jog. Day two: race.",
        ("10K", 2, 2, (2, 2)),
    ),
    "ordinals and trailing days": (
        "My marathon plan\n"
        "First week: run 5 km on Monday, Wednesday and Friday, long run 12 km on Sunday\n"
        "Second week: run 6 km on Monday and Friday",
        ("marathon", 2, 4, (4, 2)),
    ),
    "several days at once": (
        "5K training\n"
        "Week 1\n"
        "Mon/Wed/Fri: 2 km easy\n"
        "Tue & Thu: rest\n"
        "Sat-Sun: long 4 km\n"
        "Week 2\n"
        "Monday, Wednesday, Friday: 3 km easy\n"
        "Sunday: 5 km",
        ("5K", 2, 5, (5, 4)),
    ),
    "headings of days": (
        "10K program\n"
        "\n"
        "## Week 1\n"
        "\n"
        "### Day 1 (Monday)\n"
        "\n"
        "Easy run\n"
        "- 5 km at talking pace\n"
        "- stretch\n"
        "\n"
        "### Day 2 (Thursday)\n"
        "Cross-training: bike 40 min\n"
        "\n"
        "### Day 3 (Sunday)\n"
        "**Long run:** 9 km\n"
        "\n"
        "## Week 2\n"
        "### Day 1 (Monday)\n"
        "6 km\n"
        "### Day 2 (Thursday)\n"
        "Intervals 5 x 400 m\n"
        "### Day 3 (Sunday)\n"
        "11 km",
        ("10K", 2, 2, (2, 3)),
    ),
    "unnamed list entries": (
        "Marathon training\n"
        "1. Week 1\n"
        "   - Easy run, 6 km\n"
        "   - Tempo, 5 km\n"
        "   - Rest the other days\n"
        "2. Week 2\n"
        "   - Easy run, 7 km\n"
        "   - Long run, 18 km",
        ("marathon", 2, 2, (2, 2)),
    ),
    "claims only": (
        "Half marathon.\nWeeks 1-3 (base): 3 easy runs of 5 km\nWeeks 4–6: 3 runs a week\nRace week: enjoy!",
        ("half marathon", 6, 3, (3, 3, 3, 3, 3, 3)),
    ),
    "emoji": (
        "🏃‍♀️ 5K PLAN 🏃\n"
        "📅 Week 1 🔥\n"
        "✅ Day 1 → run 2 km\n"
        "✅ Day 2 → run 3 km\n"
        "😴 Day 3 → rest\n"
        "📅 Week 2 🔥\n"
        "✅ Day 1 → run 2 km\n"
        "✅ Day 2 → run 4 km",
        ("5K", 2, 2, (2, 2)),
    ),
    "code block": (
        "Sure, a plan for the marathon:\n"
        "```\n"
        "Wk 1  | Mon 5 km, Thu 6 km, Sun 12 km\n"
        "Wk 2  | Mon 5 km, Thu 7 km, Sun 14 km\n"
        "```\n"
        "Enjoy.",
        ("marathon", 2, 3, (3, 3)),
    ),
    "weeks inside a line": (
        "Your 5K plan, in one go. Week 1: Mon run 2 km, Thu run 3 km. Week 2: Mon run 3 km, Thu 5 km.",
        ("5K", 2, 2, (2, 2)),
    ),
    "phases": (
        "10K plan\n"
        "**Phase 1: Base (Weeks 1-2)**\n"
        "- Tuesday: 3 km\n"
        "- Saturday: 5 km\n"
        "**Phase 2: Peak (Weeks 3-4)**\n"
        "- Tuesday: 4 km\n"
        "- Thursday: tempo\n"
        "- Saturday: 8 km",
        ("10K", 4, 2, (2, 2, 3, 3)),
    ),
    "week and day in a line": (
        "Week 1, Day 1: 5 km easy\nWeek 1, Day 2: 5 km easy\nWeek 2, Day 1: 6 km easy\nWeek 2, Day 2: 10K race",
        ("10K", 2, 2, (2, 2)),
    ),
    "race week without a number": (
        "Goal: half marathon\n"
        "Week 1 - Tuesday: easy 5 km; Sunday: 10 km\n"
        "Week 2 - Tuesday: easy 6 km; Sunday: 12 km\n"
        "Race week: Tuesday: shakeout 3 km; Sunday: race!",
        ("half marathon", 3, 2, (2, 2, 2)),
    ),
    "amounts beside week numbers": (
        "5K plan\nWeek 1 - 20 km in total\nDay 1: 10 km\nDay 2: 10 km\nWeek 2, 3 runs\nWeek 3: easy 3 km, tempo 2 km",
        ("5K", 3, 2, (2, 3, 2)),
    ),
    "days without weeks": (
        "Mon: run 3 km\nWed: run 3 km\nSun: run 5 km",
        (None, None, 3, (3,)),
    ),
    "days numbered through": (
        "\n".join(f"Day {i}: run {i} km" for i in range(1, 15)),
        (None, None, None, ()),
    ),
}


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
def test_no_plan(text: str) -> None:
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
def test_hostile_text_is_read_in_a_moment(text: str) -> None:
    started = time.perf_counter()
    plan = parse_plan(text)
    assert time.perf_counter() - started < 5
    assert plan.weeks is None or plan.weeks <= 104


def test_table_keeps_days_off_and_texts() -> None:
    plan = parse_plan("Week 1\nMon: rest\nTue: easy run, 5 km\nWeek 2\nDay 3: hills")
    assert plan.table == ((1, "Mon", "rest"), (1, "Tue", "easy run, 5 km"), (2, "Day 3", "hills"))


def test_prose_that_mentions_weeks_is_no_week() -> None:
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
