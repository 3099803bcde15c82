"""The space that a search draws from: settings, distributions and coordinates."""

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loragrid.study.completion import setting_names
from loragrid.study.expressions import EXPRESSIONS, evaluate
from loragrid.study.identity import canonical
from loragrid.study.methods import has_setting
from loragrid.study.sections import Tune

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Setting → its values as in the study file: {"low", "high", "log"} or {"choices"}.
Space = Mapping[str, Mapping[str, Any]]


def searched_space(tune: Tune) -> dict[str, Mapping[str, Any]]:
    """The searched settings with their values, in the schema's order.

    A fixed order makes a search independent of the order of keys in the study file.
    """
    space = tune.spaces[tune.space]
    return {name: plain(space[name]) for name in setting_names() if name in space}


def settings_at(space: Space, method: str) -> list[str]:
    """The searched settings that a method has: a trial of another method does not draw them."""
    return [name for name in space if has_setting(method, name)]


def plain(value: Any) -> Any:
    """A value of a typed section as the study file has it: lists and dictionaries."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def is_whole(values: Mapping[str, Any]) -> bool:
    """Whether a range holds whole numbers only."""
    return isinstance(values["low"], int) and isinstance(values["high"], int)


def distributions(space: Space) -> dict[str, "BaseDistribution"]:
    """Setting → Optuna distribution; `decoded` turns what is drawn back into settings."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, values in space.items():
        if "choices" in values:
            found[name] = CategoricalDistribution([encoded(choice) for choice in values["choices"]])
        elif is_whole(values):
            found[name] = IntDistribution(values["low"], values["high"], log=values["log"])
        else:
            found[name] = FloatDistribution(float(values["low"]), float(values["high"]), log=values["log"])
    return found


def encoded(choice: Any) -> Any:
    """A choice as Optuna can store it: lists and maps, such as a batch, as JSON."""
    return json.dumps(choice) if isinstance(choice, list | dict) else choice


def decoded(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """The settings that Optuna drew, as a study file has them.

    Real numbers are rounded to three digits, within their ranges: a trial trains with the rounded
    numbers, so that its winner can be named and written down exactly.
    """
    return {name: _decoded(value, space[name]) for name, value in params.items()}


def _decoded(value: Any, values: Mapping[str, Any]) -> Any:
    if "choices" in values:
        return next(choice for choice in values["choices"] if encoded(choice) == value)
    if is_whole(values):
        return value
    # Rounding may leave the range: 0.98764 in a range up to 0.98765 would become 0.988.
    return min(max(float(f"{value:.2e}"), float(values["low"])), float(values["high"]))


def point_in(space: Space, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The point of a space at which a run has these settings, expressions evaluated; None outside.

    `settings` maps at least the space's settings to their values, None for what the run's method
    does not have, as in `Cell.identity`.
    """
    point = {}
    for name, values in space.items():
        value = settings[name]
        if value is None:
            continue
        if "choices" in values:
            matching = [choice for choice in values["choices"] if _value_of(choice, name, settings) == canonical(value)]
            if not matching:
                return None
            point[name] = matching[0]
        elif values["low"] <= value <= values["high"]:
            point[name] = value
        else:
            return None
    return point


def _value_of(choice: Any, name: str, settings: Mapping[str, Any]) -> Any:
    """A choice with its expression evaluated, in the form that identities have."""
    if name in EXPRESSIONS and isinstance(choice, str):
        choice = evaluate(choice, rank=settings["rank"])
    return canonical(choice)


def ordered_choices(values: Mapping[str, Any]) -> list[Any]:
    """The choices of a setting: numbers and batches by size, others as in the study file."""
    choices = list(values["choices"])
    if all(isinstance(choice, int | float) for choice in choices):
        return sorted(choices)
    if all(isinstance(choice, list) and all(isinstance(item, int) for item in choice) for choice in choices):
        return sorted(choices, key=lambda choice: (math.prod(choice), choice))
    return choices


def coordinate(values: Mapping[str, Any], value: Any) -> float:
    """Position of a value in its range, 0 to 1.

    On a log scale if the range has one; by place among choices.
    """
    if "choices" in values:
        choices = ordered_choices(values)
        if len(choices) == 1:
            return 0.5
        return choices.index(value) / (len(choices) - 1)
    low, high = values["low"], values["high"]
    if low == high:
        return 0.5
    if values["log"]:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def distance(space: Space, one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Euclidean distance of two settings in coordinates, as a share of the space's diagonal.

    A setting that only one of them has counts as the whole length of its axis.
    """
    squares = [_axis_distance(values, one.get(name), other.get(name)) ** 2 for name, values in space.items()]
    return math.sqrt(sum(squares) / len(space))


def _axis_distance(values: Mapping[str, Any], one: Any, other: Any) -> float:
    if one is None or other is None:
        return float(one is not other)
    return coordinate(values, one) - coordinate(values, other)
