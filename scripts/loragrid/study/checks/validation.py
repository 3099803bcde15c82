"""Checks of a study file: its schema, and what a schema cannot express.

This module, `schema` and the other `*_validation` only refuse studies and change none, so
`loragrid.runtime.code_digest` leaves them out of the code of the stages.
"""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loragrid.study.checks.gpus_validation import check_gpus
from loragrid.study.checks.grid_validation import check_grid, written_departures
from loragrid.study.checks.liger_validation import check_liger
from loragrid.study.checks.schema_validation import check_schema
from loragrid.study.checks.tune_validation import check_tune
from loragrid.study.completion import settings_of_methods
from loragrid.study.grid import arms
from loragrid.study.methods import ADAPTER_SETTINGS, METHODS, not_of_method
from loragrid.study.schema import dotted_key, one_of, read_schema, study_error

# Whole numbers that every library and file format here can hold.
LARGEST_WHOLE = 2**53


def check_written(settings: dict[str, Any], path: Path) -> None:
    """Raise a one-line `UserError` if a study file, as it is written, breaks the schema."""
    _refuse_old_form(settings, path)
    check_schema(settings, path)
    _check_finite(settings, path, [])
    _check_methods(settings, path)
    _check_warmup(settings, path)


def check_complete(settings: dict[str, Any], path: Path) -> None:
    """Raise a one-line `UserError` if keys of a complete study file contradict each other."""
    # By default the held-out rows come from the base case's set, so its name is checked first.
    _check_names(settings, path)
    _check_data(settings, path)
    check_grid(settings, path)
    check_gpus(settings, path)
    check_liger(settings, path)
    _check_scoring(settings["scoring"], path)
    _check_engine(settings, path)
    if settings["tune"] is not None:
        check_tune(settings, path)


def _refuse_old_form(settings: dict[str, Any], path: Path) -> None:
    training = settings.get("training")
    # Each of these files was complete. One of the two keys alone is a slip in a file of the present form.
    if isinstance(training, dict) and {"alpha", "budget"} <= training.keys():
        problem = "written in the form of an earlier version, with settings under training"
        fix = f"python scripts/tools/convert_study.py {shlex.quote(str(path))} writes it in the present form"
        raise study_error(path, None, problem, fix=fix)


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


def _check_methods(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse a setting that is written beside a method without it, such as a rank of `full`."""
    base = settings.get("base_case", {})
    method = base.get("method", "lora")
    if method == "none":
        raise study_error(path, "base_case.method", "nothing to depart from (none)", fix="use another method")
    for key, departs in written_departures(settings):
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


def _check_warmup(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse a warm-up that no run has, because the only schedule of the study is `constant`."""
    base, grid = settings.get("base_case", {}), settings.get("grid", {})
    schedules = {base.get("schedule"), *grid.get("axes", {}).get("schedule", [])}
    schedules |= {departs.get("schedule") for _, departs in written_departures(settings)} - {None}
    # A complete file has the default of every key.
    unused = (None, {"steps": 0}, read_schema()["properties"]["base_case"]["properties"]["warmup"]["default"])
    given = {"base_case.warmup": base.get("warmup"), "grid.axes.warmup": grid.get("axes", {}).get("warmup")}
    for key, value in given.items():
        if schedules == {"constant"} and value not in unused:
            problem = f"the schedule constant has no warm-up ({value})"
            raise study_error(path, key, problem, fix="remove it, or use the schedule constant_with_warmup")


def _check_data(settings: dict[str, Any], path: Path) -> None:
    data = settings["data"]
    if settings["heldout"]["set"] not in data:
        problem = f"not a key of data ({settings['heldout']['set']!r})"
        raise study_error(path, "heldout.set", problem, fix=one_of(data))
    for name, entry in data.items():
        _check_filters(entry["filters"], f"data.{name}.filters", path)
        for part in entry.get("mix", {}):
            key = f"data.{name}.mix.{part}"
            if part not in data:
                raise study_error(path, key, f"not a key of data ({part!r})", fix=one_of(data))
            # One level is enough for any mix, and it cannot contain itself.
            if "mix" in data[part]:
                raise study_error(path, key, "a mix of a mix", fix="list its sets here instead")


def _check_filters(filters: Mapping[str, Any], key: str, path: Path) -> None:
    for what in ("characters", "turns"):
        least, most = filters[f"min_{what}"], filters[f"max_{what}"]
        if most is not None and least > most:
            problem = f"no conversation has at least {least} and at most {most} {what}"
            raise study_error(path, key, problem, fix=f"lower min_{what}, or raise max_{what}")


def _check_names(settings: dict[str, Any], path: Path) -> None:
    """Refuse a model or a data set that the study does not have."""
    base, grid = settings["base_case"], settings["grid"]
    named = [("base_case", base), *((f"grid.axes.{n}", {n: v}) for n, vs in grid["axes"].items() for v in vs)]
    for key, point in [*named, *written_departures(settings)]:
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


def _check_engine(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse an arm or a searched method that the engine cannot score, and a precision that it cannot load."""
    if settings["scoring"]["engine"] == "hf":
        return
    base, fix = settings["base_case"], "set scoring.engine to hf, or leave it out"
    points = [dict(base) | dict(arm.departs) for arm in arms(settings)]
    if settings["tune"] is not None:
        space = settings["tune"]["spaces"][settings["tune"]["space"]]
        points += [dict(base) | {"method": method} for method in space.get("method", {}).get("choices", [])]
    for point in points:
        if not METHODS[point["method"]].vllm:
            problem = f"vllm cannot score a run of this method ({point['method']})"
            raise study_error(path, "scoring.engine", problem, fix=fix)
        if point["precision"] == "4bit":
            problem = "vllm loads no base in this precision (4bit)"
            raise study_error(path, "scoring.engine", problem, fix="set it to hf, or precision to 16bit")


def _check_scoring(scoring: dict[str, Any], path: Path) -> None:
    # Subjects are named after their shares.
    names = ["1"]
    for share in scoring["at"]:
        name = f"{share:g}"
        if share < 1 and name in names:
            problem = f"a share too close to another one or to the end ({share})"
            raise study_error(path, "scoring.at", problem, fix="remove it")
        names.append(name)
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
