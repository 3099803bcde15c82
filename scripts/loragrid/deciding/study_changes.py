"""Changes of a study file that may close a question, and the file with them.

Every change adds: seeds, items, values. So each finished run keeps its identity and is used again.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from loragrid.deciding.compared_results import BASE_CASE, ArmKey
from loragrid.paths import ROOT
from loragrid.study.study_file import Study

HEAD = """# The study {name} with what `snakemake next` added to it; comments of the original are lost.
# Results go on in results/{name}: everything finished there is used again.
"""


@dataclass(frozen=True)
class Change:
    """What is added to a study.

    `grid_seeds`: seeds for every arm; `arm_seeds`: seeds for single arms; `items`: task as the study
    file names it → items to score; `values`: (axis, value) for the axes; `named`: arms by name, with
    what departs in each.
    """

    grid_seeds: tuple[int, ...] = ()
    arm_seeds: Mapping[ArmKey, tuple[int, ...]] = field(default_factory=dict)
    items: Mapping[str, int] = field(default_factory=dict)
    values: tuple[tuple[str, Any], ...] = ()
    named: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __or__(self, other: "Change") -> "Change":
        """Both changes together."""
        arms = dict.fromkeys((*self.arm_seeds, *other.arm_seeds))
        tasks = dict.fromkeys((*self.items, *other.items))
        return Change(
            _union(self.grid_seeds, other.grid_seeds),
            {arm: _union(self.arm_seeds.get(arm, ()), other.arm_seeds.get(arm, ())) for arm in arms},
            {task: max(self.items.get(task, 0), other.items.get(task, 0)) for task in tasks},
            _union(self.values, other.values),
            {**self.named, **other.named},
        )

    def seeds_of(self, arm: ArmKey) -> tuple[int, ...]:
        """The seeds that an arm gets, some of which it may have already."""
        return _union(self.grid_seeds, self.arm_seeds.get(arm, ()))


NOTHING = Change()


def _union(one: tuple, other: tuple) -> tuple:
    return (*one, *(item for item in other if item not in one))


def changed_file(study: Study, change: Change, departs: Mapping[ArmKey, Mapping[str, Any]]) -> dict[str, Any]:
    """The study file as its user wrote it, with the change; `departs` says what departs in each arm with new seeds.

    Paths that were given relative to the file are made absolute, or relative to the project.
    """
    settings = _portable(study.written, study.yaml)
    grid = settings.setdefault("grid", {})
    axes = grid.setdefault("axes", {})
    for axis, value in change.values:
        values = axes.setdefault(axis, [study.yaml["base_case"][axis]])
        if value not in values:
            values.append(copy.deepcopy(value))
    if change.grid_seeds:
        listed = axes.get("seed", [study.base_case.seed])
        axes["seed"] = [*listed, *(seed for seed in change.grid_seeds if seed not in listed)]
    if not axes:
        del grid["axes"]
    if change.named:
        grid["cells"] = grid.get("cells", {}) | copy.deepcopy(dict(change.named))
    for arm, seeds in change.arm_seeds.items():
        _add_arm_seeds(grid, None if arm == BASE_CASE else dict(departs[arm]), seeds)
    if change.items:
        settings.setdefault("scoring", {})["limit"] = _limits(study, settings, change.items)
    return settings


def _add_arm_seeds(grid: dict[str, Any], departs: dict[str, Any] | None, seeds: tuple[int, ...]) -> None:
    """Seeds of one arm; of the base case if nothing `departs`."""
    known = grid.get("axes", {}).get("seed", [])
    if departs is None:
        listed = grid.setdefault("base_case_seeds", [])
    else:
        entries = grid.setdefault("arm_seeds", [])
        entry = next((entry for entry in entries if entry["arm"] == departs), None)
        if entry is None:
            entry = {"arm": copy.deepcopy(departs), "seeds": []}
            entries.append(entry)
        listed = entry["seeds"]
    listed += [seed for seed in seeds if seed not in listed and seed not in known]
    # A seed of the whole grid may have made the entry empty, which the schema refuses.
    if departs is not None and not listed:
        entries.remove(entry)


def _limits(study: Study, settings: dict[str, Any], items: Mapping[str, int]) -> dict[str, int | None]:
    """`scoring.limit` as a map in which the tasks have their new numbers of items."""
    before = settings["scoring"].get("limit")
    limits = dict(before) if isinstance(before, Mapping) else {"others": before}
    # The file names a task by a path that may have been made portable with the others.
    names = dict(zip(study.scoring.tasks, (*_listed(settings, "target"), *_listed(settings, "retention"))))
    return {names.get(task, task): most for task, most in items.items()} | {
        name: most for name, most in limits.items() if name not in {names.get(task, task) for task in items}
    }


def _listed(settings: dict[str, Any], group: str) -> list[str]:
    from loragrid.study.completion import complete

    return complete(settings)["scoring"][group]


def _portable(written: Any, resolved: Any) -> Any:
    """A copy of what the user wrote, with paths as the study resolved them at the same place."""
    if isinstance(written, Mapping) and isinstance(resolved, Mapping):
        if written.keys() <= resolved.keys():
            return {key: _portable(value, resolved[key]) for key, value in written.items()}
        # The keys of `scoring.limit` may be paths themselves; their order is the file's.
        return {_portable(a, b): _portable(written[a], resolved[b]) for a, b in zip(written, resolved)}
    if isinstance(written, list) and isinstance(resolved, list) and len(written) == len(resolved):
        return [_portable(one, other) for one, other in zip(written, resolved)]
    if isinstance(written, str) and isinstance(resolved, str) and written != resolved:
        return resolved.removeprefix(f"{ROOT}/")
    return copy.deepcopy(written)


def study_text(name: str, settings: dict[str, Any]) -> str:
    """A study file as text."""
    return HEAD.format(name=name) + yaml.safe_dump(
        settings, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )
