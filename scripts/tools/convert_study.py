"""Turns a study file of the earlier form, with settings under `training`, into the present one.

Usage: python scripts/tools/convert_study.py OLD.yaml [NEW.yaml]

Writes the settings that differ from their defaults, without the old file's comments, and refuses to
overwrite a file. By default NEW.yaml is OLD-converted.yaml beside it.
"""

if __name__ == "__main__":
    import check_environment  # noqa: F401  ends the process if packages are missing

import argparse
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from loragrid.errors import UserError, run_main, summary_line
from loragrid.runtime.atomic_files import write_text
from loragrid.study.completion import complete
from loragrid.study.reading.yaml_file import read_yaml
from loragrid.study.schema import study_error
from loragrid.study.sections import VALIDATION_LOSS
from loragrid.study.study_file import load_study

GROUPS = ("all-linear", "attention", "mlp")
AXES = ("model", "learning_rate", "rank", "batch", "seed")
NOT_IDENTITY = ("save_steps", "save_minutes", "keep_checkpoints", "session_minutes", "report_to")
# A range of whole numbers becomes at most this many choices, for settings that now only have
# choices.
MOST_CHOICES = 11
# Where an old file names a model.
NAMES = {
    "properties": {
        "base_case": {"properties": {"model": {"type": "string"}}},
        "grid": {"properties": {"model": {"items": {"type": "string"}}}},
    }
}

Settings = dict[str, Any]


def convert(old: Mapping[str, Any], path: Path) -> Settings:
    """The settings of an old study file in the new form, defaults left out.

    `path` names the file in errors. Raises `UserError` for a grid that the new form cannot express.
    """
    data, training = old["data"], dict(old["training"])
    # Other trainers' ways to write settings, which the earlier form refused.
    alphas = training["alpha"] if isinstance(training["alpha"], list) else [training["alpha"]]
    kept = {key: training.pop(key) for key in NOT_IDENTITY}
    key = _data_key(data["source"])
    rows = {} if data["max_rows"] is None else {"rows": data["max_rows"] - data["heldout_rows"]}
    base = dict(old["base_case"])
    precision = {name: entry["precision"] for name, entry in old["models"].items()}
    base |= {
        "warmup": _warmup(training),
        "evaluations": _evaluations(old, training.pop("evaluate_every_steps")),
        "max_length_tokens": data["max_length_tokens"],
        "loss_on": data["loss_on"],
        "precision": precision[base["model"]],
        **training,
        "alpha": alphas[0],
        "target_modules": _modules(training["target_modules"]),
    }
    new = {
        "title": old["title"],
        "data": {key: {"source": data["source"], **rows}},
        "heldout": {"rows": data["heldout_rows"], "seed": data["split_seed"]},
        "models": {name: _without(entry, "precision") for name, entry in old["models"].items()},
        "base_case": base,
        "grid": _grid(old, precision, path, alphas),
        "training": kept,
        "scoring": old["scoring"],
        "compare": old["compare"],
        "tune": old["tune"] and _tune(old["tune"], base, path),
        "plan": old["plan"],
    }
    return _short(new)


def _without(entry: Mapping[str, Any], name: str) -> Settings:
    return {key: value for key, value in entry.items() if key != name}


def _data_key(source: Mapping[str, Any]) -> str:
    """A key for the data set: the end of its name, in the characters that a key may have."""
    name = source.get("hub") or source.get("generator") or Path(source["path"]).stem
    key = re.sub(r"[^A-Za-z0-9.-]+", "-", name.rsplit("/", 1)[-1]).strip("-.")
    return key or "rows"


def _evaluations(old: Mapping[str, Any], every_steps: int) -> int:
    """Measurements of the base case's held-out loss, as many as before at the planned updates."""
    budget, (per_device, accumulation) = old["training"]["budget"], old["base_case"]["batch"]
    rows = per_device * accumulation
    if "steps" in budget:
        steps = budget["steps"]
    elif "tokens" in budget:
        steps = budget["tokens"] / (rows * old["plan"]["row_tokens"])
    elif old["plan"]["rows"] is not None:
        steps = budget["epochs"] * old["plan"]["rows"] / rows
    else:
        return 10
    return max(1, round(steps / every_steps))


def _warmup(training: Settings) -> Settings:
    """The warm-up, in updates or as a share of them; removed from `training`."""
    if "warmup_ratio" in training:
        return {"ratio": training.pop("warmup_ratio")}
    return {"steps": training.pop("warmup_steps")}


def _modules(names: str | list[str]) -> str | list[str]:
    return re.split("[, ]+", names) if isinstance(names, str) and names not in GROUPS else names


def _grid(old: Mapping[str, Any], precision: Mapping[str, str], path: Path, alphas: list[Any]) -> Settings:
    base, grid = old["base_case"], old["grid"]
    axes = {axis: grid[axis] for axis in AXES if grid[axis] != [base[axis]]}
    if len(alphas) > 1:
        axes["alpha"] = alphas
    new: Settings = {"design": grid["design"], "axes": axes}
    if grid["design"] == "one_factor" and "seed" in axes:
        # Only the base case had further seeds.
        new["base_case_seeds"] = [seed for seed in axes.pop("seed") if seed != base["seed"]]
    others = [model for model in axes.get("model", []) if precision[model] != precision[base["model"]]]
    if others and grid["design"] == "factorial":
        problem = f"a factorial grid of models in several precisions ({', '.join(sorted(set(precision.values())))})"
        raise study_error(path, "grid.model", problem, fix="write grid.cells by hand")
    if others:
        new["tied"] = [{"model": model, "precision": precision[model]} for model in others]
        axes["model"] = [model for model in axes["model"] if model not in others]
        if axes["model"] == [base["model"]]:
            del axes["model"]
    return new


def _tune(old: Mapping[str, Any], base: Mapping[str, Any], path: Path) -> Settings:
    spaces = {}
    for name, space in old["spaces"].items():
        new = {key: space[key] for key in ("learning_rate", "weight_decay", "rank") if key in space}
        if "warmup_steps" in space:
            new["warmup"] = {"choices": [{"steps": steps} for steps in _choices(space["warmup_steps"])]}
        if "batch" in space or "accumulation" in space:
            sides = [
                _choices(space.get(key, {"choices": [base["batch"][side]]}))
                for side, key in enumerate(("batch", "accumulation"))
            ]
            new["batch"] = {"choices": [list(batch) for batch in itertools.product(*sides)]}
        if "alpha_per_rank" in space:
            if "choices" not in space["alpha_per_rank"]:
                key = f"tune.spaces.{name}.alpha_per_rank"
                raise study_error(path, key, "a range, which alpha has no more", fix="list choices instead")
            new["alpha"] = {"choices": [f"{factor:g} * rank" for factor in space["alpha_per_rank"]["choices"]]}
        spaces[name] = new
    # Trials were measured on some of the held-out rows; a search has rows of its own now.
    kept = {key: value for key, value in old.items() if key not in ("heldout_rows", "objective")}
    return kept | {"spaces": spaces, "validation_rows": old["heldout_rows"], "objective": VALIDATION_LOSS}


def _choices(values: Mapping[str, Any]) -> list[int]:
    """The choices of a parameter; of a range of whole numbers some, evenly spaced."""
    if "choices" in values:
        return values["choices"]
    low, high = values["low"], values["high"]
    number = min(MOST_CHOICES, high - low + 1)
    steps = max(1, number - 1)
    return sorted({round(low + (high - low) * index / steps) for index in range(number)})


def _short(new: Settings) -> Settings:
    """The settings without what is left to its default."""
    # A study that gives only what has no default shows all defaults.
    needed = {key: new[key] for key in ("title", "data", "models")}
    if new["tune"] is not None:
        needed["tune"] = {key: new["tune"][key] for key in ("budget", "spaces")}
    defaults = complete(needed)
    short = {}
    for section, value in new.items():
        if section in ("title", "data"):
            short[section] = value
        elif section == "models":
            short[section] = {
                name: {
                    key: item for key, item in entry.items() if item is not None and (key, item) != ("revision", "main")
                }
                for name, entry in value.items()
            }
        elif value is not None:
            short[section] = dict(_different(value, defaults[section], needed.get(section, {})))
    return {section: value for section, value in short.items() if value not in ({}, None)}


def _different(value: Settings, defaults: Settings, needed: Settings) -> Iterator[tuple[str, Any]]:
    """The items that are not at their default, and those that have none."""
    for key, item in value.items():
        if key in needed or key not in defaults or item != defaults[key]:
            yield key, item


def main() -> None:
    """Read the old file, write the new one and check it."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__))
    parser.add_argument("old", type=Path, metavar="OLD.yaml")
    parser.add_argument("new", type=Path, metavar="NEW.yaml", nargs="?")
    options = parser.parse_args()
    old = options.old
    new = options.new or old.with_name(f"{old.stem}-converted.yaml")
    if new.exists():
        raise UserError(f"{new}: exists already. Fix: give another name, or remove it.")
    try:
        settings = convert(read_yaml(old, NAMES), old)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{old}: not a complete study file of the earlier form ({error}). "
            "Fix: convert it by hand with config/README.md."
        ) from None
    write_text(new, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None, width=118))
    study = load_study(str(new.resolve()))
    print(f"{new}: {len(study.cells)} runs in the new form. Its results are in results/{new.stem}.")


if __name__ == "__main__":
    run_main(main)
