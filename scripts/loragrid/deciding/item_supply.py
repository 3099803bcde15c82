"""How many more items a study's tasks have, and what scoring them would add to a comparison."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from loragrid.comparing.measures import POOLED_RETENTION
from loragrid.deciding.compared_results import pooled_tasks
from loragrid.planning.scoring_cost import task_sizes
from loragrid.study.sections import HELDOUT_LOSS
from loragrid.study.study_file import Study
from loragrid.study.task_names import task_file
from loragrid.study.tasks import item_limit, items_file, read_task


@dataclass(frozen=True)
class TaskItems:
    """A task: its name in the study file, its items that are scored now, and all that it has.

    `requests` are the requests of all items in order if they are known; equal ones count once.
    """

    written: str
    now: int
    most: int
    requests: tuple[str, ...] | None

    def growth(self, items: int) -> float:
        """How many times as many distinct requests so many items hold."""
        if self.requests is None:
            return items / self.now
        return len(set(self.requests[:items])) / len(set(self.requests[: self.now]))


class ItemSupply:
    """The items of a study's tasks. `tasks` is what compare.json says of them."""

    def __init__(self, study: Study, tasks: Mapping[str, Mapping[str, Any]]) -> None:
        self._study, self._scored = study, tasks
        self._pooled = [task["name"] for task in pooled_tasks(tasks)]

    @cached_property
    def tasks(self) -> dict[str, TaskItems]:
        """Task as results name it → its items, for every task that has more than are scored."""
        study, found = self._study, {}
        sizes = task_sizes(replace(study.scoring, limit=None))
        # A search on a task uses the items beyond the limit, which the final scores must not.
        searched = study.tune.task if study.tune is not None and study.tune.enabled else None
        for name, size in sizes.items():
            now = item_limit(study.scoring.limit, name)
            task = own_name(name)
            if size is None or not size.items or now is None or now >= size.items or name == searched:
                continue
            if task in self._scored:
                requests = requests_of(name)
                # What the model is asked may hold more than the field that is known here.
                if requests is not None and len(set(requests[:now])) != self._scored[task]["requests"]:
                    requests = None
                found[task] = TaskItems(name, now, size.items, requests)
        return found

    def tasks_of(self, measure: str) -> list[str]:
        """The tasks that a measure is made of."""
        return self._pooled if measure == POOLED_RETENTION else [measure]

    def more(self, measure: str) -> list[dict[str, int]]:
        """What to score instead, as items by the study file's task names: twice, four times, all of them."""
        tasks = [self.tasks[task] for task in self.tasks_of(measure) if task in self.tasks]
        found = []
        for factor in (2, 4, None):
            items = {task.written: task.most if factor is None else min(factor * task.now, task.most) for task in tasks}
            if items and items not in found:
                found.append(items)
        return found

    def growth(self, measure: str, items: Mapping[str, int]) -> float:
        """How many times as many items a measure would stand on; for a mean over tasks as its variance counts them."""
        tasks = self.tasks_of(measure)
        shares = []
        for task in tasks:
            known = self.tasks.get(task)
            more = items.get(known.written) if known else None
            shares.append(1.0 if more is None else 1 / known.growth(max(more, known.now)))
        return len(shares) / sum(shares)


def requests_of(name: str) -> tuple[str, ...] | None:
    """What the items of a study's own task ask, in order; None for a task without a file of items."""
    file = task_file(name)
    items_path = None if file is None else items_file(file)
    if items_path is None:
        return None
    lines = (line for line in items_path.read_text(encoding="utf-8").splitlines() if line.strip())
    items = [json.loads(line) for line in lines]
    return tuple(str(item.get("prompt") or item.get("question") or item) for item in items)


@cache
def own_name(name: str) -> str:
    """The name of a task in results, which need not be that of its file."""
    file = task_file(name)
    if file is None or name == HELDOUT_LOSS:
        return name
    settings = read_task(file)
    return settings.get("group") or settings.get("task") or name
