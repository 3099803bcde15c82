"""Checks of a study file: its schema, and what a schema cannot express.

This module and `schema` only refuse studies and change none, so `loragrid.runtime.code_digest`
leaves both out of the code of the stages.
"""

import math
from pathlib import Path
from typing import Any

from loragrid.study.schema import check_schema, dotted_key, one_of, study_error

# Parameters of a search space that 0 is a sensible value of; a learning rate, rank or batch of 0
# trains nothing.
MAY_BE_ZERO = ("warmup_steps", "weight_decay")


def check_study(settings: dict[str, Any], path: Path) -> None:
    """Raise a one-line `UserError` if settings break the schema or contradict each other."""
    check_schema(settings, path)
    _check_finite(settings, path, [])
    _check_models_and_grid(settings, path)
    _check_scoring(settings["scoring"], path)
    _check_heldout_rows(settings["data"], path)
    if settings["tune"] is not None:
        _check_tune(settings["tune"], path)


def _check_finite(value: Any, path: Path, key: list[str | int]) -> None:
    """YAML reads `.nan` and `.inf` as numbers, and a NaN passes every bound of the schema."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_finite(item, path, [*key, name])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_finite(item, path, [*key, index])
    elif isinstance(value, float) and not math.isfinite(value):
        raise study_error(path, dotted_key(key), f"not a finite number ({value})", fix="give a finite number")


def _check_models_and_grid(settings: dict[str, Any], path: Path) -> None:
    models, base, grid = settings["models"], settings["base_case"], settings["grid"]
    for key, names in (("base_case.model", [base["model"]]), ("grid.model", grid["model"])):
        for name in names:
            if name not in models:
                raise study_error(path, key, f"not a key of models ({name!r})", fix=one_of(models))
    # A one-factor grid includes the base case by itself; a factorial one is the product of its
    # lists.
    if grid["design"] == "factorial":
        for axis, value in base.items():
            if value not in grid[axis]:
                problem = f"a factorial grid without the base case's value ({value})"
                raise study_error(path, f"grid.{axis}", problem, fix="add that value")


def _check_scoring(scoring: dict[str, Any], path: Path) -> None:
    # A task in both would count as evidence for learning and for forgetting at once.
    twice = set(scoring["target"]) & set(scoring["retention"])
    if twice:
        problem = f"task in both target and retention ({min(twice)!r})"
        raise study_error(path, "scoring", problem, fix="keep it in one of the two lists")
    if isinstance(scoring["limit"], dict):
        for task in scoring["limit"]:
            if task not in ("others", *scoring["target"], *scoring["retention"]):
                problem = f"limit of a task in neither target nor retention ({task!r})"
                raise study_error(path, "scoring.limit", problem, fix="add the task to a list, or remove its limit")


def _check_heldout_rows(data: dict[str, Any], path: Path) -> None:
    # The data's real size is only known later; this catches the mistake before anything is
    # downloaded.
    heldout, most = data["heldout_rows"], data["max_rows"]
    if most is not None and heldout > most / 2:
        problem = f"more than half of max_rows ({heldout} of {most})"
        raise study_error(path, "data.heldout_rows", problem, fix=f"lower it to {most // 2} or less")


def _check_tune(tune: dict[str, Any], path: Path) -> None:
    if tune["space"] not in tune["spaces"]:
        problem = f"not a key of tune.spaces ({tune['space']!r})"
        raise study_error(path, "tune.space", problem, fix=one_of(tune["spaces"]))
    for name, space in tune["spaces"].items():
        for parameter, values in space.items():
            key = f"tune.spaces.{name}.{parameter}"
            _check_parameter(path, key, values, may_be_zero=parameter in MAY_BE_ZERO)
    pruner, evaluations = tune["pruner"], tune["evaluations"]
    if pruner is not None and pruner["min_evaluations"] > evaluations:
        problem = f"more than the {evaluations} evaluations of a trial ({pruner['min_evaluations']})"
        raise study_error(path, "tune.pruner.min_evaluations", problem, fix=f"lower it to {evaluations} or less")


def _check_parameter(path: Path, key: str, values: dict[str, Any], *, may_be_zero: bool) -> None:
    lowest = min(values.get("choices") or [values["low"], values["high"]])
    if lowest <= 0 and not may_be_zero:
        raise study_error(path, key, f"not above 0 ({lowest})", fix="give values above 0")
    if "choices" in values:
        return
    low, high = values["low"], values["high"]
    if low > high:
        raise study_error(path, key, f"low is above high ({low} > {high})", fix="swap them")
    if values["log"] and low <= 0:
        raise study_error(path, key, f"a log range that starts at 0 (low: {low})", fix="raise low, or set log to false")
