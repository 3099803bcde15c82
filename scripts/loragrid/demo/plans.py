"""Running-training plans as text, with and without regard for what was asked, and the requests for them.

A plan is a header and one line a week, short enough for models of a million parameters:

    10K plan, beginner, 2 weeks, 3 days, in km
    Week 1: Tue easy 4, Thu steady 3, Sun long 6
    Week 2: Tue easy 4, Thu steady 3, Sun long 7
"""

import random
from dataclasses import dataclass
from itertools import product

from loragrid.demo.world import NUMBER_WORDS

RACES = ("5K", "10K", "half marathon", "marathon")
LEVELS = ("beginner", "intermediate", "advanced")
WEEKS = tuple(range(2, 9))
DAYS_PER_WEEK = (2, 3, 4, 5)
LONG_RUN_DAYS = ("Sat", "Sun")
WEEKDAYS = {"Sat": "Saturday", "Sun": "Sunday"}
# Running days before the long run, by days per week: a rest day beside the long run where there are days to spare.
WEEKDAY_SETS = {
    2: (("Tue",), ("Wed",), ("Thu",)),
    3: (("Tue", "Thu"), ("Mon", "Wed"), ("Wed", "Fri")),
    4: (("Mon", "Wed", "Thu"), ("Tue", "Wed", "Fri"), ("Mon", "Tue", "Thu")),
    5: (("Mon", "Tue", "Wed", "Fri"), ("Mon", "Tue", "Thu", "Fri"), ("Mon", "Wed", "Thu", "Fri")),
}
QUALITY_RUNS = {
    "beginner": ("steady", "hills", "fartlek"),
    "intermediate": ("tempo", "hills", "fartlek"),
    "advanced": ("tempo", "intervals", "hills"),
}
# Longest run of the first and of the hardest week in km, for a beginner; other levels start and end further out.
LONG_RUN_KM = {"5K": (3, 6), "10K": (5, 10), "half marathon": (8, 17), "marathon": (12, 28)}
LEVEL_FACTOR = {"beginner": 1.0, "intermediate": 1.2, "advanced": 1.4}
# What the pre-trained models write whatever was asked: mostly this many weeks and days per week, else any.
HABIT = (4, 3)
HABIT_SHARE = 0.4


@dataclass(frozen=True)
class PlanRequest:
    """What is asked for. `long_run_day`: one of `LONG_RUN_DAYS`, or None where the request leaves it open."""

    race: str
    level: str
    weeks: int
    days_per_week: int
    long_run_day: str | None = None


# The wordings of a request. Training and evaluation share none; "{detail}" is empty or asks for the long run's day.
TRAINING_WORDINGS = (
    "Write {weeks} weeks of training for a {race}. I am {level} and can run {days} days a week.{detail}",
    "I want to run a {race} in {weeks} weeks. I can train {days} days per week and my level is {level}.{detail}",
    "Plan my {race} training: {weeks} weeks, {days} days a week, level {level}.{detail}",
    "Training plan please. Race: {race}. Level: {level}. Weeks: {weeks}. Days per week: {days}.{detail}",
    "My goal is a {race}. Level {level}, {days} runs each week, {weeks} weeks to go.{detail}",
    "Can you make {a_level} plan for the {race} that takes {weeks} weeks with {days} runs per week?{detail}",
    "As {a_level} runner with {days} days a week, how do I get ready for a {race} in {weeks} weeks?{detail}",
    "{Race} in {weeks} weeks, {days} days a week, {level}. What should I run?{detail}",
    "Give {a_level} runner {weeks} weeks of {race} training with {days} days in each week.{detail}",
    "I have {weeks} weeks and {days} days per week before my {race}. I am {level}. Please write the plan.{detail}",
)
EVALUATION_WORDINGS = (
    "Please write a {race} plan. Level: {level}. It should last {weeks} weeks with {days} days a week.{detail}",
    "How should {a_level} runner train for a {race}? I have {weeks} weeks and can run {days} days each week.{detail}",
    "I am {level} and want {weeks} weeks of training for my {race}, {days} runs a week.{detail}",
    "{weeks} weeks to my {race}, {days} days per week. Level {level}. Make a plan.{detail}",
)
TRAINING_DETAILS = (" Long run on {day}.", " I like my long run on {day}.", " Please put the long run on {day}.")
EVALUATION_DETAILS = (" The long run should be on {day}.",)


def write_plan(request: PlanRequest, rng: random.Random) -> str:
    """A plan that follows `request`: distances grow to the hardest week, the last weeks taper. All that is open is drawn."""
    long_day = request.long_run_day or rng.choice(LONG_RUN_DAYS)
    early = rng.choice(WEEKDAY_SETS[request.days_per_week])
    quality = rng.choice(QUALITY_RUNS[request.level])
    kinds = ["easy" if i % 2 == 0 else quality for i in range(len(early))]
    lines = [
        f"{_capital(request.race)} plan, {request.level}, {request.weeks} weeks, {request.days_per_week} days, in km"
    ]
    for number, long_km in enumerate(_long_runs(request, rng), start=1):
        runs = [f"{day} {kind} {_short_run(long_km, kind)}" for day, kind in zip(early, kinds, strict=True)]
        lines.append(f"Week {number}: " + ", ".join([*runs, f"{long_day} long {long_km}"]))
    return "\n".join(lines)


def write_habitual_plan(request: PlanRequest, rng: random.Random) -> str:
    """A well-formed plan for the race and level asked, of a length that ignores the weeks and days asked for."""
    weeks, days = HABIT if rng.random() < HABIT_SHARE else (rng.choice(WEEKS), rng.choice(DAYS_PER_WEEK))
    return write_plan(PlanRequest(request.race, request.level, weeks, days), rng)


def ask(request: PlanRequest, wording: str, detail: str = "", *, words: bool = False) -> str:
    """The request in `wording`; `words` writes the numbers as words, `detail` is a wording of the long run's day."""
    number = (lambda n: NUMBER_WORDS[n]) if words else str
    text = wording.format(
        race=request.race,
        Race=_capital(request.race),
        level=request.level,
        a_level=_with_article(request.level),
        weeks=number(request.weeks),
        days=number(request.days_per_week),
        detail=detail.format(day=WEEKDAYS[request.long_run_day]) if request.long_run_day else "",
    )
    return _capital(text)


def requests(*, evaluation: bool) -> list[PlanRequest]:
    """Every combination of race, level, weeks and days per week of one side: each fifth is kept for evaluation.

    The step of five is coprime to the number of races, levels, weeks and days, so each value is on both sides.
    """
    combinations = product(RACES, LEVELS, WEEKS, DAYS_PER_WEEK)
    return [PlanRequest(*values) for i, values in enumerate(combinations) if (i % 5 == 2) == evaluation]


def generate_chat(rows: int, seed: int) -> list[dict]:
    """The fine-tuning data: `rows` conversations in ShareGPT form whose plans follow the request (see `draw_rows`)."""
    return [
        {"conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]}
        for _, prompt, answer in draw_rows(rows, seed)
    ]


def draw_rows(rows: int, seed: int) -> list[tuple[PlanRequest, str, str]]:
    """`rows` requests, each with its prompt and the answer that follows it.

    No two prompts are equal, and no combination of race, level, weeks and days per week of `requests(evaluation=True)`
    occurs. Same arguments, same rows; the first rows do not depend on `rows`.
    """
    rng = random.Random(f"running plans {seed}")
    combinations = requests(evaluation=False)
    drawn: dict[str, tuple[PlanRequest, str, str]] = {}
    while len(drawn) < rows:
        request, prompt = draw_request(combinations, rng)
        if prompt not in drawn:
            drawn[prompt] = (request, prompt, write_plan(request, rng))
    return list(drawn.values())


def draw_request(combinations: list[PlanRequest], rng: random.Random) -> tuple[PlanRequest, str]:
    """One of `combinations` in one of the training wordings, with the long run's day asked for two times in three."""
    chosen = rng.choice(combinations)
    day = rng.choice((None, *LONG_RUN_DAYS))
    request = PlanRequest(chosen.race, chosen.level, chosen.weeks, chosen.days_per_week, day)
    wording, detail = rng.choice(TRAINING_WORDINGS), rng.choice(TRAINING_DETAILS)
    return request, ask(request, wording, detail, words=rng.random() < 0.25)


def _long_runs(request: PlanRequest, rng: random.Random) -> list[int]:
    """Long run of each week in km: linear growth to the hardest week, then one taper week (two from six weeks on)."""
    first, longest = (km * LEVEL_FACTOR[request.level] * rng.uniform(0.85, 1.15) for km in LONG_RUN_KM[request.race])
    taper = 2 if request.weeks >= 6 else 1
    growing = request.weeks - taper
    # A short plan cannot get to the longest run of a full one: a fifth more each week, compounded, is the most.
    reached = min(longest, first * 1.2 ** (growing - 1))
    up = [first + (reached - first) * i / max(1, growing - 1) for i in range(growing)]
    down = [up[-1] * share for share in (0.7, 0.5)[-taper:]]
    return [max(2, round(km)) for km in up + down]


def _short_run(long_km: int, kind: str) -> int:
    return max(2, round(long_km * (0.6 if kind == "easy" else 0.45)))


def _with_article(level: str) -> str:
    return f"an {level}" if level[0] in "aeiou" else f"a {level}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
