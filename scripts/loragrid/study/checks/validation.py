"""Checks of a study file: its schema, and what a schema cannot express.

This module, `schema` and the other `*_validation` only refuse studies and change none, so
`loragrid.runtime.code_digest` leaves them out of the code of the stages.
"""

import math
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, raise_errors
from loragrid.study.checks.backup_validation import check_backup
from loragrid.study.checks.gpus_validation import check_gpus
from loragrid.study.checks.grid_validation import check_grid, written_departures
from loragrid.study.checks.liger_validation import check_liger
from loragrid.study.checks.mistakes import Mistake, gathered, without_mistakes
from loragrid.study.checks.name_validation import wrong_names, wrong_tasks
from loragrid.study.checks.schema_validation import LARGEST_WHOLE, schema_mistakes, too_large
from loragrid.study.checks.tune_validation import check_tune
from loragrid.study.completion import complete, settings_of_methods
from loragrid.study.grid import arms
from loragrid.study.methods import ADAPTER_SETTINGS, METHODS, not_of_method
from loragrid.study.schema import dotted_key, read_schema, study_error
from loragrid.study.sections import AS_TRAINED

# The sections that name data sets and models, and the file itself.
NAMING = (("data",), ("models",), ())


def check_written(settings: dict[str, Any], path: Path) -> None:
    """Raise a `UserError` with a line for each way in which a study file, as it is written, breaks the schema.

    Names and paths that are wrong beside them are named too, as far as the rest of the file tells.
    """
    _refuse_old_form(settings, path)
    mistakes = schema_mistakes(settings, path)
    errors = [mistake.error for mistake in mistakes]
    rest = without_mistakes(settings, mistakes)
    errors += gathered(_check_finite(rest, path, []))
    if not mistakes:
        errors += gathered(_check_methods(rest, path), _check_warmup(rest, path))
    if errors:
        errors += _wrong_names(rest, path)
    raise_errors(errors)


def _wrong_names(rest: dict[str, Any], path: Path) -> list[UserError]:
    """Names and paths that are wrong in what is left of a study file without its mistakes."""
    rest = {"title": "missing"} | rest
    # A map that lacks a key is left out as a whole, but for one that the study's names come from.
    parents = {mistake.place[:-1]: mistake.error for mistake in schema_mistakes(rest, path)}
    incomplete = [Mistake(place, "value", error) for place, error in parents.items() if place[:1] not in NAMING]
    rest = without_mistakes(rest, incomplete)
    if schema_mistakes(rest, path):
        return []
    # Contradictions are left out: one may follow from a key that was taken out.
    settings = complete(rest)
    return [*wrong_names(settings, path), *wrong_tasks(settings, path)]


def check_complete(settings: dict[str, Any], path: Path) -> None:
    """Raise a `UserError` with a line for each contradiction between keys of a complete study file, and for each
    path that leads nowhere."""
    errors = gathered(_check_data(settings, path), _check_scoring(settings, path))
    of_grid = gathered(check_grid(settings, path))
    # The others go through the runs of a grid, which may be more than memory holds.
    checks = [] if of_grid else [check_gpus, check_liger, _check_engine, _check_scored_precision]
    checks.append(check_backup)
    if settings["tune"] is not None:
        checks.append(check_tune)
    errors += of_grid + gathered(*(_raised(check, settings, path) for check in checks))
    errors = [*wrong_names(settings, path), *errors]
    raise_errors([*errors, *(wrong_tasks(settings, path) if errors else [])])


def _raised(check: Callable[..., None], settings: Mapping[str, Any], path: Path) -> Iterator[UserError]:
    """The error that a check raises."""
    check(settings, path)
    yield from ()


def _refuse_old_form(settings: dict[str, Any], path: Path) -> None:
    training = settings.get("training")
    # Each of these files was complete. One of the two keys alone is a slip in a file of the present form.
    if isinstance(training, dict) and {"alpha", "budget"} <= training.keys():
        problem = "written in the form of an earlier version, with settings under training"
        fix = f"python scripts/tools/convert_study.py {shlex.quote(str(path))} writes it in the present form"
        raise study_error(path, None, problem, fix=fix)


def _check_finite(value: Any, path: Path, key: list[str | int]) -> Iterator[UserError]:
    """YAML reads `.nan` and `.inf` as numbers, and a NaN passes every bound of the schema."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _check_finite(item, path, [*key, name])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _check_finite(item, path, [*key, index])
    elif isinstance(value, float) and not math.isfinite(value):
        yield study_error(path, dotted_key(key), f"not a finite number ({value})", fix="give a finite number")
    elif isinstance(value, int | float) and abs(value) > LARGEST_WHOLE:
        yield too_large(path, dotted_key(key), value)


def _check_methods(settings: Mapping[str, Any], path: Path) -> Iterator[UserError]:
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
            yield study_error(path, f"{key}.{foreign}", problem, fix=f"remove {foreign}, or use another method")
    # The base case's own method may lack a setting that it gives to the other arms.
    absent = ADAPTER_SETTINGS - settings_of_methods(settings)
    for section, given in (("base_case", base), ("grid.axes", settings.get("grid", {}).get("axes", {}))):
        for name in sorted(absent & given.keys()):
            problem = f"no method of the study has this setting ({given[name]})"
            yield study_error(path, f"{section}.{name}", problem, fix=f"remove it; the method is {method}")


def _check_warmup(settings: Mapping[str, Any], path: Path) -> Iterator[UserError]:
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
            yield study_error(path, key, problem, fix="remove it, or use the schedule constant_with_warmup")


def _check_data(settings: dict[str, Any], path: Path) -> Iterator[UserError]:
    data = settings["data"]
    for name, entry in data.items():
        yield from _check_filters(entry["filters"], f"data.{name}.filters", path)
        columns = list(entry.get("columns", {}).values())
        if twice := [column for column in columns if columns.count(column) > 1]:
            problem = f"a column with two uses ({twice[0]!r})"
            yield study_error(path, f"data.{name}.columns", problem, fix="give each use a column of its own")
        for part in entry.get("mix", {}):
            if "mix" in data.get(part, {}):
                # One level is enough for any mix, and it cannot contain itself.
                yield study_error(path, f"data.{name}.mix.{part}", "a mix of a mix", fix="list its sets here instead")


def _check_filters(filters: Mapping[str, Any], key: str, path: Path) -> Iterator[UserError]:
    for what in ("characters", "turns"):
        least, most = filters[f"min_{what}"], filters[f"max_{what}"]
        if most is not None and least > most:
            problem = f"no conversation has at least {least} and at most {most} {what}"
            yield study_error(path, key, problem, fix=f"lower min_{what}, or raise max_{what}")


def _check_engine(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse an arm or a searched method that the engine cannot score, and a precision that it cannot load."""
    if settings["scoring"]["engine"] == "hf":
        return
    base, fix = settings["base_case"], "set scoring.engine to hf, or leave it out"
    points = [dict(base) | dict(arm.departs) for arm in arms(settings)]
    if settings["tune"] is not None:
        space = settings["tune"]["spaces"].get(settings["tune"]["space"], {})
        points += [dict(base) | {"method": method} for method in space.get("method", {}).get("choices", [])]
    for point in points:
        if not METHODS[point["method"]].vllm:
            problem = f"vllm cannot score a run of this method ({point['method']})"
            raise study_error(path, "scoring.engine", problem, fix=fix)
        if point["precision"] == "4bit":
            problem = "vllm loads no base in this precision (4bit)"
            raise study_error(path, "scoring.engine", problem, fix="set it to hf, or precision to 16bit")


def _check_scored_precision(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse a precision of scoring for runs that are not in 32bit."""
    if settings["scoring"]["precision"] == AS_TRAINED:
        return
    base = settings["base_case"]
    others = {(dict(base) | dict(arm.departs))["precision"] for arm in arms(settings)} - {"32bit"}
    if others:
        problem = f"only for runs in 32bit (a run is in {sorted(others)[0]})"
        raise study_error(path, "scoring.precision", problem, fix=f"set it to {AS_TRAINED}, or leave it out")


def _check_scoring(settings: Mapping[str, Any], path: Path) -> Iterator[UserError]:
    scoring = settings["scoring"]
    # Subjects are named after their shares.
    names = ["1"]
    for share in scoring["at"]:
        name = f"{share:g}"
        if share < 1 and name in names:
            problem = f"a share too close to another one or to the end ({share})"
            yield study_error(path, "scoring.at", problem, fix="remove it")
        names.append(name)
    # A task in both would count as evidence for learning and for forgetting at once.
    twice = set(scoring["target"]) & set(scoring["retention"])
    if twice:
        problem = f"task in both target and retention ({min(twice)!r})"
        yield study_error(path, "scoring", problem, fix="keep it in one of the two lists")
    if isinstance(scoring["limit"], dict):
        for task in scoring["limit"]:
            if task not in ("others", *scoring["target"], *scoring["retention"]):
                problem = f"limit of a task in neither target nor retention ({task!r})"
                yield study_error(path, "scoring.limit", problem, fix="add the task to a list, or remove its limit")
