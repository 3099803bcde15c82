"""Studies and cells at a searched setting, and the settings that a search's results depend on."""

import copy
import dataclasses
from typing import Any

from loragrid.runtime.atomic_files import sha256_json
from loragrid.study.completion import complete
from loragrid.study.grid import Cell
from loragrid.study.search.search_space import searched_space
from loragrid.study.settings import Budget
from loragrid.study.study_file import Study
from loragrid.study.tasks import task_digest

# Settings of the grid's runs that trials replace with their own: a smaller budget, measured at
# equal parts of it.
GRID_ONLY = ("budget", "evaluations")


def at_point(study: Study, point: dict[str, Any], *, budget: Budget | None = None) -> Study:
    """The study whose single cell is the base case with the settings of `point`.

    With it, a trial and a run are made by the same code. `point` maps settings to values as in a
    study file; `budget` replaces the study's.
    """
    settings = copy.deepcopy(study.yaml)
    settings["base_case"] |= point
    if budget is not None:
        settings["base_case"]["budget"] = {budget.unit: budget.amount}
    # A trial has no grid and no search of its own.
    settings |= {"grid": {}, "tune": None, "adopt": {}}
    return dataclasses.replace(study, yaml=complete(settings))


def cell_at(study: Study, point: dict[str, Any]) -> Cell:
    """The run of a searched setting at the grid's full budget.

    A grid cell with the same settings has the same identity.
    """
    return at_point(study, point).cells[0]


def search_settings(study: Study) -> dict[str, Any]:
    """The settings that determine a search's trials.

    The number of trials and of workers is not among them: raising the number continues the same
    search.
    """
    tune, identity = study.yaml["tune"], cell_at(study, {}).identity
    objective: Any = tune["objective"]
    if study.tune.task is not None:
        # Not its name, which may hold a path.
        objective = [task_digest(study, study.tune.task), study.tune.metric]
    kept = (
        "budget",
        "evaluations",
        "validation_rows",
        "sampler",
        "seed",
        "startup_trials",
        "pruner",
    )
    return {
        "base_case": {name: value for name, value in identity.items() if name not in GRID_ONLY},
        "space": tune["spaces"][tune["space"]],
        "order": list(searched_space(study.tune)),
        "objective": objective,
        **{key: tune[key] for key in kept},
    }


def settings_sha256(study: Study) -> str:
    """Digest of `search_settings`."""
    return sha256_json(search_settings(study))
