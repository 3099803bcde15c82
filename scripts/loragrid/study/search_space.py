"""The space that a search draws from: checked as written in the study file, as Optuna's distributions, and as coordinates."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError
from loragrid.study.sections import Tune

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

PARAMETERS = ("learning_rate", "warmup_steps", "weight_decay", "batch", "accumulation", "rank", "alpha_per_rank")
WHOLE = ("warmup_steps", "batch", "accumulation", "rank")
MAY_BE_ZERO = ("warmup_steps", "weight_decay")


def check_tune(tune: dict[str, Any] | None, path: Path) -> None:
    """What the schema cannot say of a study file's `tune`; a mistake is a `UserError` that names key and mend."""
    if tune is None:
        return
    if tune["space"] not in tune["spaces"]:
        known = ", ".join(tune["spaces"])
        raise UserError(f"{path.name}: tune.space: {tune['space']!r} is no key of tune.spaces: take one of {known}")
    for name, space in tune["spaces"].items():
        for parameter, values in space.items():
            if complaint := _complaint(parameter, values):
                raise UserError(f"{path.name}: tune.spaces.{name}.{parameter}: {complaint}")
    pruner = tune["pruner"]
    if pruner is not None and pruner["min_evaluations"] > tune["evaluations"]:
        raise UserError(
            f"{path.name}: tune.pruner.min_evaluations: a trial has only {tune['evaluations']} evaluations: lower it"
        )


def _complaint(parameter: str, values: dict[str, Any]) -> str | None:
    numbers = values.get("choices") or [values["low"], values["high"]]
    if min(numbers) <= 0 and parameter not in MAY_BE_ZERO:
        return f"{min(numbers)} is not above 0: raise it"
    if "choices" in values:
        return None
    if values["low"] > values["high"]:
        return f"low {values['low']} is above high {values['high']}: swap them"
    if values["log"] and values["low"] <= 0:
        return "a log range cannot begin at 0: raise low, or set log to false"
    return None


def searched_space(tune: Tune) -> dict[str, dict[str, Any]]:
    """The searched parameters with their values, in the order of `PARAMETERS` whatever their order in the file."""
    space = tune.spaces[tune.space]
    return {parameter: space[parameter] for parameter in PARAMETERS if parameter in space}


def distributions(space: dict[str, dict[str, Any]]) -> dict[str, "BaseDistribution"]:
    """Parameter → Optuna distribution."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for parameter, values in space.items():
        if "choices" in values:
            found[parameter] = CategoricalDistribution(values["choices"])
        elif parameter in WHOLE:
            found[parameter] = IntDistribution(values["low"], values["high"], log=values["log"])
        else:
            found[parameter] = FloatDistribution(float(values["low"]), float(values["high"]), log=values["log"])
    return found


def readable(point: dict[str, Any], space: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Drawn reals rounded to three digits within their range: what a trial trains with, and a winner is named after."""
    return {
        name: value if "choices" in space[name] or name in WHOLE else _rounded(value, space[name])
        for name, value in point.items()
    }


def _rounded(value: float, values: dict[str, Any]) -> float:
    return min(max(float(f"{value:.2e}"), float(values["low"])), float(values["high"]))


def coordinate(values: dict[str, Any], value: float) -> float:
    """Where a value lies in its range, 0 to 1: on a log scale if it is one, by rank among sorted choices."""
    if "choices" in values:
        choices = sorted(values["choices"])
        return choices.index(value) / (len(choices) - 1) if len(choices) > 1 else 0.5
    low, high = values["low"], values["high"]
    if low == high:
        return 0.5
    if values["log"]:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def distance(space: dict[str, dict[str, Any]], one: dict[str, float], other: dict[str, float]) -> float:
    """Euclidean distance of two settings in coordinates, as a share of the space's diagonal."""
    total = sum(
        (coordinate(values, one[name]) - coordinate(values, other[name])) ** 2 for name, values in space.items()
    )
    return math.sqrt(total / len(space))
