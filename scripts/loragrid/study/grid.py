"""The grid: the cells of a study file, each with the identity that its files are named after."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loragrid.runtime.atomic_files import sha256_json
from loragrid.study.completion import setting_names
from loragrid.study.expressions import EXPRESSIONS, evaluate
from loragrid.study.identity import canonical, data_identity, heldout_identity, model_identity
from loragrid.study.methods import ADAPTER_SETTINGS, METHODS
from loragrid.study.run_names import run_name, value_text
from loragrid.study.sections import ModelEntry
from loragrid.study.settings import Settings

# Keys of `Cell.departs` for an arm that departs in several settings at once.
TIED, NAMED, SEARCHED = "tied", "cells", "search"
ARMS = (TIED, NAMED, SEARCHED)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training run.

    `settings` are what is trained, expressions evaluated. `departs` maps each setting that differs
    from the base case to its value in the study file; an arm of several settings is one entry, such
    as {"tied": "rank 64, learning_rate 1e-4"}. `data` is the id of its data set, `base` that of its
    untrained base. `identity` holds all that determines the result.
    """

    run: str
    settings: Settings
    departs: dict[str, Any]
    data: str
    base: str
    identity: dict[str, Any]

    @property
    def model(self) -> str:
        """Key of the base model."""
        return self.settings.model

    @property
    def arm(self) -> dict[str, Any]:
        """What departs from the base case apart from the seed: equal for replicates."""
        return {name: value for name, value in self.departs.items() if name != "seed"}


@dataclass(frozen=True)
class Arm:
    """What departs from the base case, and a label if several settings depart together."""

    departs: Mapping[str, Any]
    label: Mapping[str, str] | None = None


def expand(settings: Mapping[str, Any]) -> tuple[Cell, ...]:
    """The cells of a complete study file, each once; any first part of them is a usable study.

    The base case comes first, then the ends of each axis. In a factorial grid cells that differ
    from the base case on two axes follow, then those on three, and so on. A further seed repeats
    all of them.
    """
    make = _CellMaker(settings)
    cells: dict[tuple, Cell] = {}
    for arm, seed in arms_with_seeds(settings):
        cell = make.cell(arm, seed)
        # The first mention counts: a combination that an axis makes is no arm of its own. Two names
        # for one model are two values of an axis all the same.
        if cell is not None:
            same = cell.model, cell.settings.data, sha256_json(cell.identity)
            cells.setdefault(same, cell)
    return tuple(cells.values())


def base_case_on(settings: Mapping[str, Any], model: str) -> Cell:
    """The base case on one of the models, which need not be a run of the grid."""
    return _CellMaker(settings).cell(Arm({"model": model}), settings["base_case"]["seed"])


def arms_with_seeds(settings: Mapping[str, Any]) -> Iterator[tuple[Arm, int]]:
    """Every arm with every seed, in the order of training."""
    base, grid = settings["base_case"], settings["grid"]
    more = grid["axes"].get("seed", [])
    seeds = [base["seed"], *(seed for seed in more if seed != base["seed"])]
    listed = list(arms(settings))
    for index, seed in enumerate(seeds):
        yield from ((arm, seed) for arm in listed)
        if index == 0:
            # The base case is a part of every comparison: its spread is worth knowing early.
            yield from ((Arm({}), further) for further in grid["base_case_seeds"] if further not in seeds)
    for entry in grid["arm_seeds"]:
        named = [arm for arm in listed if arm.departs == entry["arm"]]
        yield from ((arm, seed) for arm in named for seed in entry["seeds"] if seed not in seeds)


def arms(settings: Mapping[str, Any]) -> Iterator[Arm]:
    """Every arm of a complete study file, the base case first; two of them may be the same runs."""
    base, grid = settings["base_case"], settings["grid"]
    axes = {name: grid["axes"][name] for name in setting_names() if name in grid["axes"] and name != "seed"}
    yield Arm({})
    if grid["design"] != "cells":
        yield from (Arm(departs) for departs in _departures(base, axes))
    if grid["design"] == "factorial":
        product = []
        for values in itertools.product(*(_ends_first(axes[name], name) for name in axes)):
            point = dict(zip(axes, values, strict=True))
            product.append({name: value for name, value in point.items() if value != base[name]})
        # Single departures came above, in their balanced order.
        product.sort(key=len)
        yield from (Arm(departs) for departs in product if len(departs) > 1)
    for departs in grid["tied"]:
        text = ", ".join(f"{name} {value_text(value)}" for name, value in departs.items())
        yield Arm(departs, {TIED: text})
    for name, departs in grid["cells"].items():
        yield Arm(departs, {NAMED: name})


def _departures(base: Mapping[str, Any], axes: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Every single departure from the base case.

    Axes take turns, so that any first part covers all of them equally.
    """
    by_axis = []
    for axis, values in axes.items():
        by_axis.append([{axis: value} for value in _ends_first(values, axis) if value != base[axis]])
    rounds = itertools.zip_longest(*by_axis)
    return [departs for turn in rounds for departs in turn if departs is not None]


def _ends_first(values: list[Any], axis: str) -> list[Any]:
    """The values of an axis as smallest, largest, second smallest, …; words as in the file.

    The ends come first because they show most: whether the axis matters at all, and in which
    direction.
    """
    if axis == "batch":
        values = sorted(values, key=lambda batch: (batch[0] * batch[1], batch))
    elif all(isinstance(value, int | float) for value in values):
        values = sorted(values)
    else:
        return list(values)
    ordered, remaining = [], list(values)
    while remaining:
        ordered.append(remaining.pop(0))
        remaining.reverse()  # The next value comes from the other end.
    return ordered


class _CellMaker:
    """Makes cells of one study; what cells share is hashed once, which takes longer than a cell."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.heldout = heldout_identity(settings)
        self.models = {key: model_identity(ModelEntry.read(entry)) for key, entry in settings["models"].items()}
        self.data = {key: data_identity(settings["data"], key) for key in settings["data"]}
        self.digests: dict[tuple, str] = {}

    def cell(self, arm: Arm, seed: int) -> Cell | None:
        """The cell of an arm; None for the method `none`, whose result is the base's."""
        base = self.settings["base_case"]
        point = resolved(dict(base) | dict(arm.departs) | {"seed": seed})
        if point["method"] == "none":
            return None
        model, data = point["model"], point["data"]
        others = {name: value for name, value in point.items() if name not in ("model", "data")}
        identity = {
            "model": self.models[model],
            "data": self.data[data],
            "heldout": self.heldout,
            **canonical(others),
        }
        departs = dict(arm.departs)
        if seed != base["seed"]:
            departs["seed"] = seed
        shown = {name: point.get(name, value) for name, value in departs.items() if point.get(name, value) is not None}
        label = arm.label or {}
        if NAMED in label:
            shown = {"cells": label[NAMED]} | ({"seed": seed} if "seed" in departs else {})
        if label:
            departs = dict(label) | ({"seed": seed} if "seed" in departs else {})
        return Cell(
            run=run_name(model, shown, sha256_json(identity)),
            settings=Settings.read(point),
            departs=departs,
            data=f"{data}-{model}-{self._data_digest(point)}",
            base=f"base-{model}-{self._base_digest(model, point['precision'])}",
            identity=identity,
        )

    def _data_digest(self, point: Mapping[str, Any]) -> str:
        """Digest of a tokenised data set: the rows, the tokenizer, and how they are cut and labelled."""
        parts = point["model"], point["data"], point["max_length_tokens"], point["loss_on"]
        if parts not in self.digests:
            identity = [self.models[parts[0]], self.data[parts[1]], self.heldout, *parts[2:]]
            self.digests[parts] = sha256_json(identity)[:8]
        return self.digests[parts]

    def _base_digest(self, model: str, precision: str) -> str:
        """Digest of an untrained base and of the rows that its held-out loss is measured on."""
        parts = model, precision
        if parts not in self.digests:
            self.digests[parts] = sha256_json([self.models[model], precision, self.heldout])[:8]
        return self.digests[parts]


def resolved(point: dict[str, Any]) -> dict[str, Any]:
    """A run's settings with expressions evaluated, and None for what its method does not have."""
    absent = ADAPTER_SETTINGS - METHODS[point["method"]].settings
    point = point | dict.fromkeys(absent)
    for name in EXPRESSIONS:
        if isinstance(point[name], str):
            point[name] = evaluate(point[name], rank=point["rank"])
    if isinstance(point["target_modules"], list | tuple):
        # Layers are adapted in the model's order, whatever that of their names.
        point["target_modules"] = sorted(point["target_modules"])
    if point["schedule"] == "constant":
        point["warmup"] = {"steps": 0}
    return {name: point[name] for name in setting_names()}
