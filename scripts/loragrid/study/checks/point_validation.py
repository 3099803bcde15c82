"""Checks of the settings of one run, before any work: expressions, and what a method excludes.

It only refuses, so `loragrid.runtime.code_digest` leaves it out of the code of the stages.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loragrid.study.expressions import EXPRESSIONS, evaluate
from loragrid.study.grid import resolved
from loragrid.study.methods import METHODS, point_problem
from loragrid.study.schema import read_schema, study_error


def check_point(point: Mapping[str, Any], path: Path, key: str, *, separator: str = ": ") -> None:
    """Raise a one-line `UserError` if a run with these settings cannot be trained.

    `key` names where the study file asks for it; `separator` comes between it and the setting.
    """
    for name in EXPRESSIONS:
        _check_expression(point, name, path, key)
    problem = point_problem(resolved(dict(point)))
    if problem is not None:
        setting, what, fix = problem
        raise study_error(path, f"{key}{separator}{setting}", what, fix=fix)


def _check_expression(point: Mapping[str, Any], name: str, path: Path, key: str) -> None:
    value = point.get(name)
    if not isinstance(value, str):
        return
    if "rank" in value and "rank" not in METHODS[point["method"]].settings:
        # Alpha is dropped with the rank; a learning rate is not.
        if name == "alpha":
            return
        problem = f"an expression of the rank, which the method {point['method']} does not have ({value})"
        raise study_error(path, f"{key}: {name}", problem, fix="give a number")
    try:
        number = evaluate(value, rank=point["rank"])
    except ValueError as error:
        fix = "use numbers, rank and sqrt(rank), joined by * and /"
        raise study_error(
            path, f"{key}: {name}", f"not an expression of the rank: {error} ({value})", fix=fix
        ) from None
    if number <= 0:
        raise study_error(path, f"{key}: {name}", f"not above 0 ({value} is {number:g})", fix="give values above 0")
    number_form, _ = read_schema()["properties"]["base_case"]["properties"][name]["oneOf"]
    largest = number_form.get("maximum", math.inf)
    if number > largest:
        problem = f"above the maximum of {largest} ({value} is {number:g})"
        raise study_error(path, f"{key}: {name}", problem, fix=f"give values of {largest} or less")
