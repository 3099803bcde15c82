"""The scoring tasks a study names: which are ours, which are lm-eval's, and a digest of what defines ours."""

import difflib
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.study.study_file import Study

TASKS = ROOT / "config" / "tasks"
HELDOUT_LOSS = "heldout_loss"
# Some files quote the key too, some names hold other letters; only tags written as lists are not found.
NAME = re.compile(rb"^[\"']?(?:task|group|tag)[\"']?:[ \t]*[\"']?([^\s\"'\[{#]+)[\"']?[ \t]*(?:#.*)?\r?$", re.MULTILINE)


def scoring_digest(study: Study) -> str:
    """Digest of all in the study file that determines a score: task names, limits, batch size (what is padded together), and
    the content of prompts, task files and what lies beside these: editing one scores again, moving one does not. Threads
    take no part, as a forward pass gives the same bits with any number.

    A name that is no file, none of config/tasks and none of lm-eval's is a `UserError`, hours before scoring starts.
    """
    scoring = study.scoring
    called, folders, elsewhere = {}, set(), set()
    for group in ("target", "retention"):
        for index, name in enumerate(getattr(scoring, group)):
            file = task_file(name)
            if file is None and name != HELDOUT_LOSS and name not in stock_tasks():
                raise unknown_task(name, where=f"{study.path.name}: scoring.{group}[{index}]")
            called[name] = name if file is None else file.name
            if file is not None:
                folders.add(file.parent)
                elsewhere |= {items_file(file)} - {None}
    # What a task needs beside its file is not known without loading it; the study file may lie there and is no part of it.
    files = {
        file for folder in folders for file in folder.iterdir() if file.is_file() and file != study.path
    } | elsewhere
    limit = scoring.limit
    return sha256_json(
        {
            "tasks": {group: [called[name] for name in getattr(scoring, group)] for group in ("target", "retention")},
            "limit": {called.get(key, key): most for key, most in limit.items()}
            if isinstance(limit, Mapping)
            else limit,
            "batch_size": scoring.batch_size,
            "qualitative": sha256_file(scoring.qualitative) if scoring.qualitative else None,
            "files": sorted({(file.name, sha256_file(file)) for file in files}),
        }
    )


def item_limit(limit: int | Mapping[str, int | None] | None, task: str) -> int | None:
    """Most items of a task by `scoring.limit`: one number for all, or a map with `others`; None for all items."""
    return limit.get(task, limit["others"]) if isinstance(limit, Mapping) else limit


def unknown_task(name: str, *, where: str = "scoring") -> UserError:
    """The complaint about a task name that nobody knows, with names that are close to it; `where`: file and key it stands in."""
    close = difflib.get_close_matches(name, [*_names_in(TASKS), *stock_tasks(), HELDOUT_LOSS], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see `lm_eval ls tasks` for the stock tasks"
    return UserError(f"{where}: task {name!r} is neither in config/tasks nor one of lm-eval's: {hint}")


def task_file(name: str) -> Path | None:
    """The YAML file of a task given by path or found in config/tasks; None for a stock lm-eval task."""
    return Path(name) if name.endswith((".yaml", ".yml")) else _names_in(TASKS).get(name)


def stock_tasks() -> dict[str, Path]:
    """Names of the tasks and groups that the installed lm-eval ships, found in its YAML files without importing it."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("lm-eval is not installed: set the environment up with `make study`")
    return _names_in(Path(spec.submodule_search_locations[0]) / "tasks")


class _Loader(yaml.SafeLoader):
    """Reads a task file without running what it names."""


_Loader.add_constructor("!function", lambda loader, node: None)


def read_task(file: Path) -> dict[str, Any]:
    """A task file's settings, its functions left out."""
    return yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)


def items_file(file: Path) -> Path | None:
    """The file of items that a task file names by a path of its own (`dataset_kwargs: {file: …}`), where it is there."""
    try:
        named = file.parent / read_task(file)["dataset_kwargs"]["file"]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return None  # names none so, or is refused with a better line when the task is built
    return named.resolve() if named.is_file() else None


@cache
def _names_in(folder: Path) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for file in sorted(folder.rglob("*.yaml")):
        for name in NAME.findall(file.read_bytes()):
            names.setdefault(name.decode(), file)
    return names
