"""Checks of the names in a study file: models, data sets, tasks, cards, search spaces.

These checks only refuse, so `loragrid.runtime.code_digest` leaves them out of the code of the stages.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.study.checks.grid_validation import written_departures
from loragrid.study.checks.mistakes import gathered
from loragrid.study.file_paths import wrong_paths
from loragrid.study.schema import nearest, one_of, study_error
from loragrid.study.task_names import unknown_tasks

CARDS = ROOT / "config" / "cards.yaml"


def wrong_names(settings: Mapping[str, Any], path: Path) -> list[UserError]:
    """An error for each name and each path in complete settings that leads nowhere, but for tasks."""
    checks = check_names, check_sets, check_space, check_card
    return [*gathered(*(check(settings, path) for check in checks)), *wrong_paths(settings, path)]


def wrong_tasks(settings: Mapping[str, Any], path: Path) -> list[UserError]:
    """An error for each unknown task: a search through lm-eval's files, which the workflow makes once for all jobs."""
    return list(unknown_tasks(settings["scoring"], path))


def check_names(settings: Mapping[str, Any], path: Path) -> Iterator[UserError]:
    """Refuse a model or a data set that the study does not have."""
    base, grid = settings["base_case"], settings["grid"]
    named = [("base_case", base), *((f"grid.axes.{n}", {n: v}) for n, vs in grid["axes"].items() for v in vs)]
    for key, point in [*named, *written_departures(settings)]:
        for setting, section in (("model", "models"), ("data", "data")):
            value = point.get(setting)
            if value is not None and value not in settings[section]:
                place = key if key.endswith(setting) else f"{key}.{setting}"
                yield _unknown(value, settings, section, place, path)
    for name, entry in settings["adopt"].items():
        if entry["model"] not in settings["models"]:
            yield _unknown(entry["model"], settings, "models", f"adopt.{name}.model", path)


def check_sets(settings: Mapping[str, Any], path: Path) -> Iterator[UserError]:
    """Refuse held-out rows and parts of mixes from a data set that the study does not have."""
    data, heldout = settings["data"], settings["heldout"]["set"]
    # By default it is the base case's, whose name `check_names` checks.
    if heldout not in data and heldout != settings["base_case"]["data"]:
        yield _unknown(heldout, settings, "data", "heldout.set", path)
    for name, entry in data.items():
        for part in entry.get("mix", {}):
            if part not in data:
                yield _unknown(part, settings, "data", f"data.{name}.mix.{part}", path)


def check_space(settings: Mapping[str, Any], path: Path) -> Iterator[UserError]:
    """Refuse a search space that the search does not have."""
    tune = settings["tune"]
    if tune is not None and tune["space"] not in tune["spaces"]:
        problem = f"not a key of tune.spaces ({tune['space']!r})"
        yield study_error(path, "tune.space", problem, fix=one_of(tune["spaces"]))


def check_card(settings: Mapping[str, Any], path: Path) -> Iterator[UserError]:
    """Refuse a card that is not in the table of cards."""
    card = settings["plan"]["card"]
    if card is not None and card not in _cards():
        yield study_error(path, "plan.card", f"not in config/cards.yaml ({card!r})", fix=nearest(card, _cards()))


@cache
def _cards() -> tuple[str, ...]:
    return tuple(yaml.safe_load(CARDS.read_text(encoding="utf-8")))


def _unknown(value: Any, settings: Mapping[str, Any], section: str, key: str, path: Path) -> UserError:
    return study_error(path, key, f"not a key of {section} ({value!r})", fix=nearest(value, settings[section]))
