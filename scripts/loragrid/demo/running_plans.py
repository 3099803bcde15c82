"""Writes the demo's running-training plans and the requests for them. A plan follows its request or ignores its size.

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
# Running days before the long run, by days per week. Up to four days a week leave a rest day beside the long run.
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
# Long run of a beginner in km, in the first and in the hardest week; LEVEL_FACTOR scales both for other levels.
LONG_RUN_KM = {"5K": (3, 6), "10K": (5, 10), "half marathon": (8, 17), "marathon": (12, 28)}
LEVEL_FACTOR = {"beginner": 1.0, "intermediate": 1.2, "advanced": 1.4}
# The pre-trained models ignore the requested size: they mostly write this many weeks and days per week, else any size.
# Fine-tuning then has something to teach.
HABITUAL_SIZE = (4, 3)
HABITUAL_SHARE = 0.4


@dataclass(frozen=True)
class RunningPlanRequest:
    """A request for a plan. `long_run_day`: one of `LONG_RUN_DAYS`, or None if the request leaves it open."""

    race: str
    level: str
    weeks: int
    days_per_week: int
    long_run_day: str | None = None


# The wordings of a request. Training and evaluation share none, so that scores measure understanding and not recall.
# "{detail}" is empty or asks for the long run's day.
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


def write_running_plan(request: RunningPlanRequest, rng: random.Random) -> str:
    """A plan that follows `request`: distances grow to the hardest week, then taper. `rng` draws all open choices."""
    long_day = request.long_run_day or rng.choice(LONG_RUN_DAYS)
    early = rng.choice(WEEKDAY_SETS[request.days_per_week])
    quality = rng.choice(QUALITY_RUNS[request.level])
    kinds = [("easy", quality)[i % 2] for i in range(len(early))]
    size = f"{request.weeks} weeks, {request.days_per_week} days"
    lines = [f"{_capital(request.race)} plan, {request.level}, {size}, in km"]
    for number, long_km in enumerate(_long_runs(request, rng), start=1):
        runs = [f"{day} {kind} {_short_run(long_km, kind)}" for day, kind in zip(early, kinds, strict=True)]
        lines.append(f"Week {number}: " + ", ".join([*runs, f"{long_day} long {long_km}"]))
    return "\n".join(lines)


def write_habitual_plan(request: RunningPlanRequest, rng: random.Random) -> str:
    """A well-formed plan for the requested race and level that ignores the requested weeks and days."""
    if rng.random() < HABITUAL_SHARE:
        weeks, days = HABITUAL_SIZE
    else:
        weeks, days = rng.choice(WEEKS), rng.choice(DAYS_PER_WEEK)
    return write_running_plan(RunningPlanRequest(request.race, request.level, weeks, days), rng)


def write_prompt(request: RunningPlanRequest, wording: str, detail: str = "", *, words: bool = False) -> str:
    """The request in `wording`, with `detail` as the wording of the long run's day. `words` spells the numbers out."""
    number = NUMBER_WORDS.__getitem__ if words else str
    if not request.long_run_day:
        detail = ""
    text = wording.format(
        race=request.race,
        Race=_capital(request.race),
        level=request.level,
        a_level=_with_article(request.level),
        weeks=number(request.weeks),
        days=number(request.days_per_week),
        detail=detail.format(day=WEEKDAYS.get(request.long_run_day)),
    )
    return _capital(text)


def request_combinations(*, evaluation: bool) -> list[RunningPlanRequest]:
    """Combinations of race, level, weeks and days per week: every fifth for evaluation, the others for training.

    Five is coprime to the numbers of races, levels, weeks and days, so every single value is on both sides.
    """
    combinations = product(RACES, LEVELS, WEEKS, DAYS_PER_WEEK)
    return [RunningPlanRequest(*values) for i, values in enumerate(combinations) if (i % 5 == 2) == evaluation]


def generate_chat(rows: int, seed: int) -> list[dict]:
    """The fine-tuning data: `rows` conversations in ShareGPT format, drawn by `draw_rows`."""
    return [
        {"conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]}
        for _, prompt, answer in draw_rows(rows, seed)
    ]


def draw_rows(rows: int, seed: int) -> list[tuple[RunningPlanRequest, str, str]]:
    """`rows` requests, each with its prompt and a plan that follows it.

    Prompts are distinct and use no combination that is reserved for evaluation. Same arguments, same rows; the first
    rows do not depend on `rows`.
    """
    rng = random.Random(f"running plans {seed}")
    combinations = request_combinations(evaluation=False)
    drawn: dict[str, tuple[RunningPlanRequest, str, str]] = {}
    while len(drawn) < rows:
        request, prompt = draw_request(combinations, rng)
        if prompt not in drawn:
            drawn[prompt] = (request, prompt, write_running_plan(request, rng))
    return list(drawn.values())


def draw_request(combinations: list[RunningPlanRequest], rng: random.Random) -> tuple[RunningPlanRequest, str]:
    """One of `combinations` in a training wording; two of three requests name the long run's day."""
    chosen = rng.choice(combinations)
    day = rng.choice((None, *LONG_RUN_DAYS))
    request = RunningPlanRequest(chosen.race, chosen.level, chosen.weeks, chosen.days_per_week, day)
    wording, detail = rng.choice(TRAINING_WORDINGS), rng.choice(TRAINING_DETAILS)
    return request, write_prompt(request, wording, detail, words=rng.random() < 0.25)


def _long_runs(request: RunningPlanRequest, rng: random.Random) -> list[int]:
    """Long run of each week in km: linear growth to the hardest week, then one taper week (two from six weeks on)."""
    first, longest = (km * LEVEL_FACTOR[request.level] * rng.uniform(0.85, 1.15) for km in LONG_RUN_KM[request.race])
    taper = 2 if request.weeks >= 6 else 1
    growing = request.weeks - taper
    # A long run grows by a fifth a week at most, so a short plan does not reach the longest run of a full one.
    peak = min(longest, first * 1.2 ** (growing - 1))
    up = [first + (peak - first) * i / max(1, growing - 1) for i in range(growing)]
    down = [up[-1] * share for share in (0.7, 0.5)[-taper:]]
    return [max(2, round(km)) for km in up + down]


def _short_run(long_km: int, kind: str) -> int:
    return max(2, round(long_km * (0.6 if kind == "easy" else 0.45)))


def _with_article(level: str) -> str:
    return f"an {level}" if level[0] in "aeiou" else f"a {level}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
