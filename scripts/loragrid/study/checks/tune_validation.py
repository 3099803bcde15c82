"""Checks of the section `tune` of a study file that a schema cannot express.

They only refuse, so `loragrid.runtime.code_digest` leaves them out of the code of the stages.
"""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loragrid.study.checks.point_validation import check_point
from loragrid.study.expressions import EXPRESSIONS
from loragrid.study.methods import ADAPTER_SETTINGS, METHODS, has_setting
from loragrid.study.schema import one_of, read_schema, study_error
from loragrid.study.sections import HELDOUT_LOSS, VALIDATION_LOSS

Space = Mapping[str, Mapping[str, Any]]


def check_tune(settings: Mapping[str, Any], path: Path) -> None:
    """Raise a one-line `UserError` if keys of the search contradict each other or the rest of the study."""
    tune = settings["tune"]
    for name, space in tune["spaces"].items():
        key = f"tune.spaces.{name}"
        for parameter, values in space.items():
            _check_parameter(path, f"{key}.{parameter}", values)
        _check_methods(settings["base_case"], space, path, key)
        for point in _corners(settings["base_case"], space):
            check_point(point, path, key)
    pruner, evaluations = tune["pruner"], tune["evaluations"]
    if pruner is not None and pruner["min_evaluations"] > evaluations:
        problem = f"more than the {evaluations} evaluations of a trial ({pruner['min_evaluations']})"
        raise study_error(path, "tune.pruner.min_evaluations", problem, fix=f"lower it to {evaluations} or less")
    _check_objective(tune["objective"], settings["scoring"], path)


def _check_parameter(path: Path, key: str, values: Mapping[str, Any]) -> None:
    if "choices" in values:
        return
    low, high = values["low"], values["high"]
    if low > high:
        raise study_error(path, key, f"low is above high ({low} > {high})", fix="swap them")
    if values["log"] and low <= 0:
        raise study_error(path, key, f"a log range that starts at 0 (low: {low})", fix="raise low, or set log to false")


def _check_methods(base: Mapping[str, Any], space: Space, path: Path, key: str) -> None:
    methods = space.get("method", {}).get("choices", [base["method"]])
    for name in methods:
        # All trials share one loaded base, which these methods change.
        if "method" in space and not (METHODS[name].adapter and METHODS[name].keeps_base):
            allowed = [name for name, method in METHODS.items() if method.adapter and method.keeps_base]
            problem = f"trials of a search share a base, which this method does not leave as it was ({name})"
            raise study_error(path, f"{key}.method", problem, fix=one_of(allowed))
    for name in space:
        if not any(has_setting(method, name) for method in methods):
            problem = f"no method of the space has this setting; it has {', '.join(methods)}"
            raise study_error(path, f"{key}.{name}", problem, fix=f"remove {name}")


def _corners(base: Mapping[str, Any], space: Space) -> Iterator[dict[str, Any]]:
    """Points of a space with every method, every expression and the smallest and largest rank."""
    values: dict[str, list[Any]] = {}
    for name in ("method", "rank", *EXPRESSIONS):
        if name not in space:
            continue
        listed = space[name].get("choices") or [space[name]["low"], space[name]["high"]]
        if name == "rank":
            listed = sorted({min(listed), max(listed)})
        elif name in EXPRESSIONS:
            # Numbers are bounded by the schema.
            listed = [value for value in listed if isinstance(value, str)] or [listed[0]]
        values[name] = list(listed)
    # A base case lacks the settings that only other methods have; a trial of these has the defaults.
    known = read_schema()["properties"]["base_case"]["properties"]
    defaults = {name: known[name]["default"] for name in ADAPTER_SETTINGS}
    for combination in itertools.product(*values.values()):
        yield defaults | dict(base) | dict(zip(values, combination, strict=True))


def _check_objective(objective: str, scoring: Mapping[str, Any], path: Path) -> None:
    if objective == VALIDATION_LOSS:
        return
    task = objective.rpartition(":")[0]
    if task == HELDOUT_LOSS:
        problem = f"a metric of the held-out rows, which no search may use ({objective})"
        raise study_error(path, "tune.objective", problem, fix=f"write {VALIDATION_LOSS}")
    tasks = [name for name in (*scoring["target"], *scoring["retention"]) if name != HELDOUT_LOSS]
    if task not in tasks:
        problem = f"not a task of scoring ({task!r})"
        fix = one_of([VALIDATION_LOSS, *(f"{name}:METRIC" for name in tasks)])
        raise study_error(path, "tune.objective", problem, fix=fix)
