"""Which options to take: the cheapest way to close each question, and the best that a budget of hours buys."""

from collections.abc import Sequence

from loragrid.deciding.options import TOGETHER, Option, OptionMaker
from loragrid.deciding.questions import Question
from loragrid.deciding.study_changes import NOTHING

# A way that fails more often than not is no way to close a question.
LIKELY = 0.5
# A step that closes less than this of a question is not worth its place in the study file.
SMALLEST_GAIN = 0.05


def cheapest_ways(
    questions: Sequence[Question], options: Sequence[Option], power: float
) -> list[tuple[Question, Option | None]]:
    """Per question its cheapest way, by hours per closed question; questions without any come last.

    Among the options that close the question with probability `power` that of the fewest hours; if
    there is none, the one that most probably does, unless it more probably fails.
    """
    found = [(question, _cheapest(question, options, power)) for question in questions]
    return sorted(found, key=lambda way: float("inf") if way[1] is None else way[1].hours_per_closed)


def _cheapest(question: Question, options: Sequence[Option], power: float) -> Option | None:
    able = [option for option in options if option.chances.get(question.name, 0.0) >= power]
    if able:
        return min(able, key=lambda option: option.hours)
    likely = [option for option in options if option.chances.get(question.name, 0.0) >= LIKELY]
    return max(likely, key=lambda option: option.chances[question.name], default=None)


def propose(
    maker: OptionMaker, ways: Sequence[tuple[Question, Option | None]], budget_hours: float | None
) -> Option | None:
    """The best single way, or with a budget of hours the best ways together, as one option; None if there is none.

    With a budget one way after another is taken, each time the one that closes most questions per hour
    beside those taken already: what two ways share, such as seeds of the base case, is paid once.
    """
    by_change = {repr(option.change): option for _, option in ways if option is not None}
    candidates = list(by_change.values())
    if budget_hours is None:
        return min(candidates, key=lambda option: option.hours_per_closed, default=None)
    together: Option | None = None
    while (step := _next_step(maker, together, candidates, budget_hours)) is not None:
        option, together = step
        candidates = [other for other in candidates if other is not option]
    return together


def _next_step(
    maker: OptionMaker, together: Option | None, candidates: Sequence[Option], budget_hours: float
) -> tuple[Option, Option] | None:
    """The best option to take next, and all taken ones with it; None if none is worth it or fits."""
    change = NOTHING if together is None else together.change
    closed, spent = (0.0, 0.0) if together is None else (together.expected_closed, together.hours)
    steps = []
    for option in candidates:
        joined = maker.evaluate(TOGETHER, change | option.change)
        gain = joined.expected_closed - closed
        if gain >= SMALLEST_GAIN and joined.hours <= budget_hours:
            steps.append(((joined.hours - spent) / gain, option, joined))
    if not steps:
        return None
    _, option, joined = min(steps, key=lambda step: step[0])
    return option, joined
