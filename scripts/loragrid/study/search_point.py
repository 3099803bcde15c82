"""From a searched setting to a study of one run, and what a search's results depend on."""

import copy
import dataclasses
from typing import Any

from loragrid.runtime.atomic_files import sha256_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.provenance import versions
from loragrid.study.grid import AXES, Cell
from loragrid.study.search_space import searched_space
from loragrid.study.sections import Budget
from loragrid.study.study_file import Study

# Libraries whose version can change a trial's loss or which trial comes next.
DECIDING = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "unsloth", "unsloth_zoo", "optuna")
# Settings of the grid's runs that trials do not have: they train to a budget of their own and are measured at its parts.
NOT_OF_TRIALS = ("budget", "evaluate_every_steps")


def at_point(study: Study, point: dict[str, Any], *, budget: Budget | None = None) -> Study:
    """The study whose only run is the base case with the settings of `point`, so that a trial and a run are made by one code.

    `point` holds some of `search_space.PARAMETERS`; `budget` replaces the study's. The study has that one cell.
    """
    settings = copy.deepcopy(study.yaml)
    case, training = settings["base_case"], settings["training"]
    case["learning_rate"] = point.get("learning_rate", case["learning_rate"])
    case["rank"] = point.get("rank", case["rank"])
    case["batch"] = [point.get("batch", case["batch"][0]), point.get("accumulation", case["batch"][1])]
    for key in ("warmup_steps", "weight_decay"):
        training[key] = _same(training[key], point.get(key, training[key]))
    if "alpha_per_rank" in point:
        alpha = _whole(point["alpha_per_rank"] * case["rank"])
        training["alpha"] = (
            "rank" if training["alpha"] == "rank" and alpha == case["rank"] else _same(training["alpha"], alpha)
        )
    if budget is not None:
        training["budget"] = {budget.unit: budget.amount}
    settings["grid"] = {"design": "one_factor"} | {axis: [case[axis]] for axis in AXES}
    settings["tune"] = None
    return dataclasses.replace(study, yaml=settings)


def cell_at(study: Study, point: dict[str, Any]) -> Cell:
    """The run of a searched setting at the grid's full budget: the same identity as any cell with these settings."""
    return at_point(study, point).cells[0]


def search_settings(study: Study) -> dict[str, Any]:
    """All settings that decide a search's trials. Not their number, nor how many at once: more trials go on with a search."""
    tune, identity = study.yaml["tune"], cell_at(study, {}).identity
    training = {key: value for key, value in identity["training"].items() if key not in NOT_OF_TRIALS}
    kept = ("budget", "evaluations", "heldout_rows", "objective", "seed", "startup_trials", "pruner")
    return {
        "base_case": identity | {"training": training},
        "space": searched_space(study.tune),
        **{key: tune[key] for key in kept},
    }


def settings_sha256(study: Study) -> str:
    """Digest of `search_settings`."""
    return sha256_json(search_settings(study))


def search_name(study: Study) -> str:
    """Readable, and unique to the search's settings, the code of a trial and the libraries: another of these, another search."""
    found = versions()
    deciding = {package: found.get(package) for package in DECIDING}
    digest = sha256_json([settings_sha256(study), code_digest("loragrid/searching/trials"), deciding])
    return f"{study.tune.space}-{digest[:8]}"


def _same(old: Any, new: Any) -> Any:
    """The study's own way of writing a number where the two are equal: 16 and 16.0 would be two identities."""
    return old if old == new else new


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
