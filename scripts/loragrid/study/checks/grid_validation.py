"""Checks of the grid of a study file: designs, combinations that cannot be trained, and equal arms.

They only refuse, so `loragrid.runtime.code_digest` leaves them out of the code of the stages.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.study.checks.point_validation import check_point
from loragrid.study.grid import NAMED, Arm, arms, resolved
from loragrid.study.identity import canonical
from loragrid.study.run_names import value_text
from loragrid.study.schema import study_error

# Ten times the largest grid that has been tried. A few more axes of a factorial grid would fill the memory.
MOST_RUNS = 100_000
SEPARATOR = ": "  # between an arm and its setting


def check_grid(settings: dict[str, Any], path: Path) -> Iterator[UserError]:
    """An error for each reason why the grid of a complete study file cannot be trained as written."""
    wrong = [*_check_design(settings, path)]
    _check_number_of_runs(settings["grid"], path)
    listed = list(arms(settings))
    wrong += _check_points(settings, listed, path)
    yield from wrong
    # Only then: an arm that cannot be trained may be equal to another one for the same reason.
    if not wrong:
        _check_distinct(settings, listed, path)
        _check_arm_seeds(settings, listed, path)


def _check_points(settings: dict[str, Any], listed: list[Arm], path: Path) -> list[UserError]:
    """An error for each reason why arms cannot be trained, at the first arm that has it."""
    found: dict[str, UserError] = {}
    for arm in listed:
        key = _place(arm)
        point = dict(settings["base_case"]) | dict(arm.departs)
        try:
            check_point(point, path, key, separator=SEPARATOR if arm.departs else ".")
        except UserError as error:
            # What is wrong with the base case is wrong with most arms, only its value may be another.
            problem = str(error).partition(key)[2].partition(" (")[0]
            found.setdefault(problem.removeprefix(SEPARATOR).removeprefix("."), error)
    return list(found.values())


def _check_design(settings: dict[str, Any], path: Path) -> Iterator[UserError]:
    base, grid = settings["base_case"], settings["grid"]
    seeds = grid["axes"].get("seed")
    if seeds is not None and base["seed"] not in seeds:
        problem = f"the base case's seed is not among them ({base['seed']})"
        yield study_error(path, "grid.axes.seed", problem, fix="add it, or leave base_case.seed out")
    # A one-factor grid includes the base case by itself; a factorial one is the product of its
    # lists.
    if grid["design"] == "factorial":
        for axis, values in grid["axes"].items():
            if base[axis] not in values:
                problem = f"a factorial grid without the base case's value ({value_text(base[axis])})"
                yield study_error(path, f"grid.axes.{axis}", problem, fix="add that value")
    for place, departs in written_departures(settings):
        if "seed" in departs:
            problem = f"every arm is trained with the same seeds ({departs['seed']})"
            yield study_error(path, f"{place}.seed", problem, fix="list the seed in grid.axes.seed instead")
    if grid["design"] == "cells" and set(grid["axes"]) - {"seed"}:
        axis = min(set(grid["axes"]) - {"seed"})
        problem = "an axis in a grid of the design cells"
        yield study_error(path, f"grid.axes.{axis}", problem, fix="remove it, or use one_factor or factorial")


def _check_number_of_runs(grid: Mapping[str, Any], path: Path) -> None:
    """Refuse a grid of more runs than any study has, before they are listed."""
    axes = dict(grid["axes"])
    seeds = len(axes.pop("seed", [])) or 1
    sizes = [len(values) for values in axes.values()]
    numbers = {"one_factor": 1 + sum(sizes), "factorial": math.prod(sizes), "cells": 1}
    runs = seeds * (numbers[grid["design"]] + len(grid["tied"]) + len(grid["cells"]))
    if runs > MOST_RUNS:
        problem = f"more than {MOST_RUNS:,} runs ({runs:,})"
        raise study_error(path, "grid", problem, fix="use fewer values, or the design one_factor")


def _check_arm_seeds(settings: dict[str, Any], listed: list[Arm], path: Path) -> None:
    for index, entry in enumerate(settings["grid"]["arm_seeds"]):
        if not any(arm.departs == entry["arm"] for arm in listed):
            text = ", ".join(f"{name} {value_text(value)}" for name, value in entry["arm"].items())
            problem, fix = f"not an arm of the grid ({text})", "name what departs from the base case in one of its arms"
            raise study_error(path, f"grid.arm_seeds[{index}].arm", problem, fix=fix)


def written_departures(settings: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(key, what departs) of every arm that a study file, complete or not, writes out."""
    grid = settings.get("grid", {})
    for index, departs in enumerate(grid.get("tied", [])):
        yield f"grid.tied[{index}]", departs
    for name, departs in grid.get("cells", {}).items():
        yield f"grid.cells.{name}", departs


def _check_distinct(settings: Mapping[str, Any], listed: list[Arm], path: Path) -> None:
    """Refuse an arm that would train the same runs as an earlier one, and so be left out."""
    base, factorial = settings["base_case"], settings["grid"]["design"] == "factorial"
    # Combinations of axes may meet: alpha 16 is `rank` at rank 16, and `full` has no rank.
    if factorial and all(arm.label is None for arm in listed):
        return
    seen: dict[str, Arm] = {}
    for arm in listed:
        point = canonical(resolved(dict(base) | dict(arm.departs)))
        first = seen.setdefault(json.dumps(point, sort_keys=True), arm)
        if first is arm or (factorial and arm.label is None) or point["method"] == "none":
            continue
        unused = next((key for key in arm.departs if point[key] is None), None)
        problem = f"trains the same as {_place(first).removeprefix('grid: ')}"
        if unused is not None:
            problem += f", because its method {point['method']} has no {unused}"
        raise study_error(path, _place(arm), problem, fix="remove it, or change a setting that makes a difference")


def _place(arm: Arm) -> str:
    """Where the study file asks for an arm."""
    if not arm.departs:
        return "base_case"
    if arm.label is not None and NAMED in arm.label:
        return f"grid.cells.{arm.label[NAMED]}"
    return "grid: " + ", ".join(f"{name} {value_text(value)}" for name, value in arm.departs.items())
