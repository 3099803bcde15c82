"""Studies and cells at a searched setting, and the settings that a search's results depend on."""

import copy
import dataclasses
from typing import Any

from loragrid.runtime.atomic_files import sha256_json
from loragrid.study.grid import AXES, Cell
from loragrid.study.search_space import searched_space
from loragrid.study.sections import Budget
from loragrid.study.study_file import Study

# Settings of the grid's runs that trials replace with their own: a smaller budget, measured at
# equal parts of it.
GRID_ONLY = ("budget", "evaluate_every_steps")


def at_point(study: Study, point: dict[str, Any], *, budget: Budget | None = None) -> Study:
    """The study whose single cell is the base case with the settings of `point`.

    With it, a trial and a run are made by the same code. `point` holds some of
    `search_space.PARAMETERS`; `budget` replaces the study's.
    """
    settings = copy.deepcopy(study.yaml)
    case, training = settings["base_case"], settings["training"]
    case["learning_rate"] = point.get("learning_rate", case["learning_rate"])
    case["rank"] = point.get("rank", case["rank"])
    case["batch"] = [point.get("batch", case["batch"][0]), point.get("accumulation", case["batch"][1])]
    for key in ("warmup_steps", "weight_decay"):
        training[key] = _keep_if_equal(training[key], point.get(key, training[key]))
    if "alpha_per_rank" in point:
        training["alpha"] = _alpha(training["alpha"], point["alpha_per_rank"], rank=case["rank"])
    if budget is not None:
        training["budget"] = {budget.unit: budget.amount}
    # One value per axis makes the base case the only cell. A trial has no search of its own.
    settings["grid"] = {"design": "one_factor"} | {axis: [case[axis]] for axis in AXES}
    settings["tune"] = None
    return dataclasses.replace(study, yaml=settings)


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
    training = {key: value for key, value in identity["training"].items() if key not in GRID_ONLY}
    kept = ("budget", "evaluations", "heldout_rows", "objective", "seed", "startup_trials", "pruner")
    return {
        "base_case": identity | {"training": training},
        "space": searched_space(study.tune),
        **{key: tune[key] for key in kept},
    }


def settings_sha256(study: Study) -> str:
    """Digest of `search_settings`."""
    return sha256_json(search_settings(study))


def _alpha(alpha: str | float, alpha_per_rank: float, *, rank: int) -> str | float:
    """The point's alpha in the study's own spelling, so that an equal alpha keeps its identity."""
    wanted = alpha_per_rank * rank
    if float(wanted).is_integer():
        wanted = int(wanted)  # 2.0 * 16 would be 32.0, and so would the run's identity.
    if alpha == "rank":
        if wanted == rank:
            return "rank"
        return wanted
    return _keep_if_equal(alpha, wanted)


def _keep_if_equal(old: Any, new: Any) -> Any:
    """`old` if both are equal, because 16 and 16.0 have different identities."""
    if old == new:
        return old
    return new
