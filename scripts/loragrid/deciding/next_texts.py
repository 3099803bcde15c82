"""Open questions, options and the proposal in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.deciding import questions as kinds
from loragrid.deciding.compared_results import BASE_CASE, ArmKey, ComparedResults
from loragrid.deciding.forecast import Forecast
from loragrid.deciding.item_supply import own_name
from loragrid.deciding.options import Option
from loragrid.deciding.questions import Question
from loragrid.formatting import between, change_beside, listed, plain_name, plural, whole
from loragrid.setting_texts import axis_name, axis_value
from loragrid.study.grid import ARMS

# Axes whose values need no word before them.
BY_THEMSELVES = ("model", "data", "method", *ARMS)


def arm_text(arm: ArmKey) -> str:
    """An arm by what departs in it: rank 64, or base case."""
    return ", ".join(value_of(axis, text) for axis, text in arm) or "base case"


def value_of(axis: str, text: str) -> str:
    """A value of an axis: rank 64; names by themselves."""
    shown = axis_value(axis, text)
    return shown if axis in BY_THEMSELVES else f"{axis_name(axis)} {shown}"


def question_text(question: Question, compared: ComparedResults) -> str:
    """An open question as a reader would ask it."""
    about = question.about
    if question.kind == kinds.AXIS:
        other = "the base case" if about["axis"] in ARMS else axis_value(about["axis"], question.row["base_case_value"])
        return f"Does {value_of(about['axis'], about['value'])} differ from {other}?"
    if question.kind == kinds.BEYOND:
        return f"Is a {axis_name(about['axis'])} beyond {axis_value(about['axis'], about['best'])} better?"
    if question.kind == kinds.LONGER:
        return "Would twice the budget help?"
    arm = _with_article(compared.arm_of(about["run"]))
    if question.kind == kinds.GAIN:
        return f"Did {arm} improve on its base?"
    return f"Does {arm} keep what its base could do?"


def _with_article(arm: ArmKey) -> str:
    return "the base case" if arm == BASE_CASE else arm_text(arm)


def so_far_text(question: Question, compared: ComparedResults) -> str:
    """What was measured: the difference with its interval, or that nothing was."""
    row = question.row
    if row is None:
        return "not trained yet"
    measure = question.measure
    unit = "share" if measure == POOLED_RETENTION else compared.summary["tasks"][measure]["unit"]
    found = change_beside(row["difference"], row["low"], row["high"], unit)
    note = "" if row["level"] == "setting" else ", of one seed"
    return f"{found} ({between(row['low'], row['high'], unit)}{note})"


def option_text(option: Option, forecast: Forecast) -> str:
    """What an option adds: 2 more seeds for the base case and rank 64; running plan on 400 items."""
    change_, parts = option.change, []
    new = forecast.new_arms(change_)
    for axis, value in change_.values:
        parts.append(_new_value(axis, value, new, forecast, option))
    for name in change_.named:
        seeds = min(forecast.seeds_after(arm, change_) for arm in new)
        parts.append(f"{plain_name(name).replace('-', ' ')} under {plural(seeds, 'seed')}")
    if change_.grid_seeds:
        parts.append(f"{plural(len(change_.grid_seeds), 'more seed', 'more seeds')} for every arm")
    parts += _seed_texts({arm: seeds for arm, seeds in change_.arm_seeds.items() if arm not in new})
    parts += _item_texts(change_.items, forecast)
    return "; ".join(parts)


def _new_value(axis: str, value: Any, new: Mapping[ArmKey, Any], forecast: Forecast, option: Option) -> str:
    from loragrid.study.run_names import value_text

    arms = [arm for arm in new if (axis, value_text(value)) in arm]
    seeds = min(forecast.seeds_after(arm, option.change) for arm in arms)
    text = value_of(axis, value_text(value))
    return f"{'twice the budget, ' if axis == 'budget' else ''}{text} under {plural(seeds, 'seed')}"


def _seed_texts(arm_seeds: Mapping[ArmKey, Sequence[int]]) -> list[str]:
    by_count: dict[int, list[str]] = {}
    for arm, seeds in arm_seeds.items():
        by_count.setdefault(len(seeds), []).append(_with_article(arm))
    return [
        f"{plural(count, 'more seed', 'more seeds')} for {listed(arms)}"
        for count, arms in sorted(by_count.items(), reverse=True)
    ]


def _item_texts(items: Mapping[str, int], forecast: Forecast) -> list[str]:
    known, by_count = forecast.supply.tasks, {}
    for task, count in items.items():
        every = "all " if count == known[own_name(task)].most else ""
        by_count.setdefault(f"{every}{whole(count)} items", []).append(plain_name(own_name(task)))
    return [f"{listed(tasks)} on {count}" for count, tasks in by_count.items()]
