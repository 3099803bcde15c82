"""The scoring tasks a study names: which are ours, which are lm-eval's, and a digest of what defines ours."""

import difflib
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

from study.durable import sha256_file, sha256_json
from study.errors import UserError
from study.study_file import ROOT

TASKS = ROOT / "config" / "tasks"
HELDOUT_LOSS = "heldout_loss"
# Some files quote the key too, some names hold other letters; only tags written as lists are not found.
NAME = re.compile(rb"^[\"']?(?:task|group|tag)[\"']?:[ \t]*[\"']?([^\s\"'\[{#]+)[\"']?[ \t]*(?:#.*)?\r?$", re.MULTILINE)


def tasks_digest(scoring: dict[str, Any]) -> str:
    """Digest of the task files and prompts that the study's scoring names, so that editing one scores again.

    A name that is no file, none of config/tasks and none of lm-eval's is a `UserError`, hours before scoring starts.
    """
    folders = set()
    for name in (*scoring["target"], *scoring["retention"]):
        if name == HELDOUT_LOSS:
            continue
        file = Path(name) if name.endswith((".yaml", ".yml")) else _names_in(TASKS).get(name)
        if file is not None:
            folders.add(file.parent)
        elif name not in stock_tasks():
            raise unknown_task(name)
    files = sorted(file for folder in folders for file in folder.iterdir() if file.is_file())
    if scoring["qualitative"] is not None:
        files.append(Path(scoring["qualitative"]))
    return sha256_json([[file.name, sha256_file(file)] for file in files])


def item_limit(limit: int | dict[str, int | None] | None, task: str) -> int | None:
    """Most items of a task by `scoring.limit`: one number for all, or a map with `others`; None for all items."""
    return limit.get(task, limit["others"]) if isinstance(limit, dict) else limit


def unknown_task(name: str) -> UserError:
    """The complaint about a task name that nobody knows, with names that are close to it."""
    close = difflib.get_close_matches(name, [*_names_in(TASKS), *stock_tasks(), HELDOUT_LOSS], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see `lm_eval ls tasks` for the stock tasks"
    return UserError(f"scoring: task {name!r} is neither in config/tasks nor one of lm-eval's: {hint}")


def task_file(name: str) -> Path | None:
    """The YAML file of a task given by path or found in config/tasks; None for a stock lm-eval task."""
    return Path(name) if name.endswith((".yaml", ".yml")) else _names_in(TASKS).get(name)


def stock_tasks() -> dict[str, Path]:
    """Names of the tasks and groups that the installed lm-eval ships, found in its YAML files without importing it."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("lm-eval is not installed: set the environment up with `make study`")
    return _names_in(Path(spec.submodule_search_locations[0]) / "tasks")


@cache
def _names_in(folder: Path) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for file in sorted(folder.rglob("*.yaml")):
        for name in NAME.findall(file.read_bytes()):
            names.setdefault(name.decode(), file)
    return names
