"""Checks of a study file: its schema, and what a schema cannot express.

This module, `schema` and the other `*_validation` only refuse studies and change none, so
`loragrid.runtime.code_digest` leaves them out of the code of the stages.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loragrid.study.checks.point_validation import check_point
from loragrid.study.checks.tune_validation import check_tune
from loragrid.study.completion import settings_of_methods
from loragrid.study.grid import arms_with_seeds
from loragrid.study.methods import ADAPTER_SETTINGS, not_of_method
from loragrid.study.schema import check_schema, dotted_key, one_of, study_error

# Whole numbers that every library and file format here can hold.
LARGEST_WHOLE = 2**53


def check_written(settings: dict[str, Any], path: Path) -> None:
    """Raise a one-line `UserError` if a study file, as it is written, breaks the schema."""
    _refuse_old_form(settings, path)
    check_schema(settings, path)
    _check_finite(settings, path, [])
    _check_methods(settings, path)


def check_complete(settings: dict[str, Any], path: Path) -> None:
    """Raise a one-line `UserError` if keys of a complete study file contradict each other."""
    # By default the held-out rows come from the base case's set, so its name is checked first.
    _check_names(settings, path)
    _check_data(settings, path)
    _check_grid(settings, path)
    _check_cells(settings, path)
    _check_scoring(settings["scoring"], path)
    if settings["tune"] is not None:
        check_tune(settings, path)


def _refuse_old_form(settings: dict[str, Any], path: Path) -> None:
    grid, training = settings.get("grid"), settings.get("training")
    flat_axes = isinstance(grid, dict) and isinstance(grid.get("rank"), list)
    if flat_axes or (isinstance(training, dict) and "alpha" in training):
        problem = "written in the form of an earlier version, with settings under training"
        raise study_error(path, None, problem, fix=f"python scripts/tools/convert_study.py {path}")


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
    elif isinstance(value, int) and abs(value) > LARGEST_WHOLE:
        raise study_error(path, dotted_key(key), f"too large a number ({value})", fix=f"give {LARGEST_WHOLE} or less")


def _departures(settings: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(key, what departs) of every arm that the file writes out."""
    grid = settings.get("grid", {})
    for index, departs in enumerate(grid.get("tied", [])):
        yield f"grid.tied[{index}]", departs
    for name, departs in grid.get("cells", {}).items():
        yield f"grid.cells.{name}", departs


def _check_methods(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse a setting that is written beside a method without it, such as a rank of `full`."""
    base = settings.get("base_case", {})
    method = base.get("method", "lora")
    if method == "none":
        raise study_error(path, "base_case.method", "nothing to depart from (none)", fix="use another method")
    for key, departs in _departures(settings):
        own = departs.get("method", method)
        foreign = not_of_method(own, departs)
        if foreign is not None:
            problem = f"the method {own} has no such setting ({departs[foreign]})"
            raise study_error(path, f"{key}.{foreign}", problem, fix=f"remove {foreign}, or use another method")
    # The base case's own method may lack a setting that it gives to the other arms.
    absent = ADAPTER_SETTINGS - settings_of_methods(settings)
    for section, given in (("base_case", base), ("grid.axes", settings.get("grid", {}).get("axes", {}))):
        for name in sorted(absent & given.keys()):
            problem = f"no method of the study has this setting ({given[name]})"
            raise study_error(path, f"{section}.{name}", problem, fix=f"remove it; the method is {method}")


def _check_data(settings: dict[str, Any], path: Path) -> None:
    data = settings["data"]
    if settings["heldout"]["set"] not in data:
        problem = f"not a key of data ({settings['heldout']['set']!r})"
        raise study_error(path, "heldout.set", problem, fix=one_of(data))
    for name, entry in data.items():
        for part in entry.get("mix", {}):
            key = f"data.{name}.mix.{part}"
            if part not in data:
                raise study_error(path, key, f"not a key of data ({part!r})", fix=one_of(data))
            # One level is enough for any mix, and it cannot contain itself.
            if "mix" in data[part]:
                raise study_error(path, key, "a mix of a mix", fix="list its sets here instead")


def _check_names(settings: dict[str, Any], path: Path) -> None:
    """Refuse a model or a data set that the study does not have."""
    base, grid = settings["base_case"], settings["grid"]
    named = [("base_case", base), *((f"grid.axes.{n}", {n: v}) for n, vs in grid["axes"].items() for v in vs)]
    for key, point in [*named, *_departures(settings)]:
        for setting, section in (("model", "models"), ("data", "data")):
            value = point.get(setting)
            if value is not None and value not in settings[section]:
                place = key if key.endswith(setting) else f"{key}.{setting}"
                problem = f"not a key of {section} ({value!r})"
                raise study_error(path, place, problem, fix=one_of(settings[section]))
    for name, entry in settings["adopt"].items():
        if entry["model"] not in settings["models"]:
            problem = f"not a key of models ({entry['model']!r})"
            raise study_error(path, f"adopt.{name}.model", problem, fix=one_of(settings["models"]))


def _check_grid(settings: dict[str, Any], path: Path) -> None:
    base, grid = settings["base_case"], settings["grid"]
    seeds = grid["axes"].get("seed")
    if seeds is not None and base["seed"] not in seeds:
        problem = f"the base case's seed is not among them ({base['seed']})"
        raise study_error(path, "grid.axes.seed", problem, fix="add it, or leave base_case.seed out")
    # A one-factor grid includes the base case by itself; a factorial one is the product of its
    # lists.
    if grid["design"] == "factorial":
        for axis, values in grid["axes"].items():
            if base[axis] not in values:
                problem = f"a factorial grid without the base case's value ({base[axis]})"
                raise study_error(path, f"grid.axes.{axis}", problem, fix="add that value")
    if grid["design"] == "cells" and set(grid["axes"]) - {"seed"}:
        axis = min(set(grid["axes"]) - {"seed"})
        problem = "an axis in a grid of the design cells"
        raise study_error(path, f"grid.axes.{axis}", problem, fix="remove it, or use one_factor or factorial")


def _check_cells(settings: dict[str, Any], path: Path) -> None:
    """Refuse combinations of settings that cannot be trained, before any work."""
    checked: set[int] = set()
    for arm, _ in arms_with_seeds(settings):
        if id(arm) in checked:
            continue
        checked.add(id(arm))
        key = "base_case"
        if arm.departs:
            key = "grid: " + ", ".join(f"{name} {value}" for name, value in arm.departs.items())
        point = dict(settings["base_case"]) | dict(arm.departs)
        check_point(point, path, key, separator=": " if arm.departs else ".")


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
