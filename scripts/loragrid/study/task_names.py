"""The names of scoring tasks, their files, and the error about an unknown name."""

import difflib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.runtime.delegation.residency import until_next_job
from loragrid.study.sections import HELDOUT_LOSS

TASKS = ROOT / "config" / "tasks"
# The name of a task, group or tag in a task file. A pattern instead of a YAML parser: lm-eval ships
# thousands of files, and they are searched on every call of snakemake. Only tags that are written
# as lists are not found.
NAME = re.compile(rb"^[\"']?(?:task|group|tag)[\"']?:[ \t]*[\"']?([^\s\"'\[{#]+)[\"']?[ \t]*(?:#.*)?\r?$", re.MULTILINE)


def unknown_tasks(scoring: Mapping[str, Any], study_file: Path) -> Iterator[UserError]:
    """An error for each task of `target` and `retention` in a section `scoring` that is unknown."""
    for group in ("target", "retention"):
        for index, name in enumerate(scoring.get(group, ())):
            if name != HELDOUT_LOSS and task_file(name) is None and name not in stock_tasks():
                where = f"{study_file.name}: scoring.{group}[{index}]"
                yield unknown_task(name, where=where, beside=study_file.parent)


def unknown_task(name: str, *, where: str = "scoring", beside: Path | None = None) -> UserError:
    """The error about an unknown task name, with names close to it.

    `where` is its file and key, `beside` the folder of the study file, whose task files may be meant.
    """
    own = {} if beside is None else {file.stem: file.name for file in sorted(beside.glob("*.yaml"))}
    close = difflib.get_close_matches(name, [*own, *_names_in(TASKS), *stock_tasks(), HELDOUT_LOSS], n=3)
    close = [own.get(found, found) for found in close]
    fix = "use a task of config/tasks or of `lm_eval ls tasks`, or the path of a task file"
    if close:
        fix = f"use {' or '.join(close)}"
    return UserError(f"{where}: unknown task ({name!r}). Fix: {fix}.")


def task_file(name: str) -> Path | None:
    """The YAML file of a task given by path or found in config/tasks; None for other names."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    return _names_in(TASKS).get(name)


def stock_tasks() -> dict[str, Path]:
    """Name → YAML file, of the tasks and groups of the installed lm-eval.

    lm-eval is not imported, which would be slow.
    """
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("lm-eval: not installed. Fix: run `make study`, which sets up the environment.")
    return _names_in(Path(spec.submodule_search_locations[0]) / "tasks")


@until_next_job
@cache
def _names_in(folder: Path) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for file in sorted(folder.rglob("*.yaml")):
        for name in NAME.findall(file.read_bytes()):
            names.setdefault(name.decode(), file)
    return names
