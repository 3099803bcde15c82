"""The space that a search draws from: parameters, distributions and coordinates."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loragrid.study.sections import Tune

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Parameter → its values as in the study file: {"low", "high", "log"} or {"choices"}.
Space = Mapping[str, Mapping[str, Any]]

PARAMETERS = ("learning_rate", "warmup_steps", "weight_decay", "batch", "accumulation", "rank", "alpha_per_rank")
INTEGER_PARAMETERS = ("warmup_steps", "batch", "accumulation", "rank")


def searched_space(tune: Tune) -> dict[str, Mapping[str, Any]]:
    """The searched parameters with their values, in the order of `PARAMETERS`.

    A fixed order makes a search independent of the order of keys in the study file.
    """
    space = tune.spaces[tune.space]
    return {parameter: space[parameter] for parameter in PARAMETERS if parameter in space}


def distributions(space: Space) -> dict[str, "BaseDistribution"]:
    """Parameter → Optuna distribution."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for parameter, values in space.items():
        if "choices" in values:
            found[parameter] = CategoricalDistribution(values["choices"])
        elif parameter in INTEGER_PARAMETERS:
            found[parameter] = IntDistribution(values["low"], values["high"], log=values["log"])
        else:
            found[parameter] = FloatDistribution(float(values["low"]), float(values["high"]), log=values["log"])
    return found


def rounded_point(point: dict[str, Any], space: Space) -> dict[str, Any]:
    """A drawn setting with its real numbers rounded to three digits, within their ranges.

    A trial trains with the rounded numbers, so that its winner can be named and written down
    exactly.
    """
    return {name: _rounded(name, value, space[name]) for name, value in point.items()}


def _rounded(name: str, value: Any, values: Mapping[str, Any]) -> Any:
    if "choices" in values or name in INTEGER_PARAMETERS:
        return value
    # Rounding may leave the range: 0.98764 in a range up to 0.98765 would become 0.988.
    return min(max(float(f"{value:.2e}"), float(values["low"])), float(values["high"]))


def coordinate(values: Mapping[str, Any], value: float) -> float:
    """Position of a value in its range, 0 to 1.

    On a log scale if the range has one; by rank among sorted choices.
    """
    if "choices" in values:
        choices = sorted(values["choices"])
        if len(choices) == 1:
            return 0.5
        return choices.index(value) / (len(choices) - 1)
    low, high = values["low"], values["high"]
    if low == high:
        return 0.5
    if values["log"]:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def distance(space: Space, one: dict[str, float], other: dict[str, float]) -> float:
    """Euclidean distance of two settings in coordinates, as a share of the space's diagonal."""
    differences = [coordinate(values, one[name]) - coordinate(values, other[name]) for name, values in space.items()]
    return math.sqrt(sum(difference**2 for difference in differences) / len(space))
