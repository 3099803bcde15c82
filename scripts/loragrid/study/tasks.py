"""The scoring tasks of a study: their files, and a digest of all that determines a score."""

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
from loragrid.runtime.delegation.residency import until_next_job
from loragrid.study.sections import AS_TRAINED, HELDOUT_LOSS
from loragrid.study.study_file import Study

TASKS = ROOT / "config" / "tasks"
# The name of a task, group or tag in a task file. A pattern instead of a YAML parser: lm-eval ships
# thousands of files, and they are searched on every call of snakemake. Only tags that are written
# as lists are not found.
NAME = re.compile(rb"^[\"']?(?:task|group|tag)[\"']?:[ \t]*[\"']?([^\s\"'\[{#]+)[\"']?[ \t]*(?:#.*)?\r?$", re.MULTILINE)

# Code that a task file runs: functions of the modules beside it, and metrics that lm-eval takes from the hub.
CODE = re.compile(r"(!function[ \t]+[\w.]+|hf_evaluate:[ \t]*[Tt]rue)")
MOST_INCLUDES = 5  # one within the other
INCLUDE = re.compile(r"^include:[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)


def scoring_digest(study: Study) -> str:
    """Digest of all in a study that determines a score; a change of it scores everything again.

    It covers task names, limits, the engine, the precision, the batch size (which decides what is padded together), and
    the content of the prompts, of task files and of the files beside them, but no paths. `threads` does
    not count: a forward pass gives the same bits with any number. A task name that is neither a
    file nor in config/tasks nor one of lm-eval's is a `UserError`, raised here hours before scoring
    starts.
    """
    scoring = study.scoring
    file_of = {}
    for group in ("target", "retention"):
        for index, name in enumerate(getattr(scoring, group)):
            file_of[name] = _checked_file(name, study.path, key=f"scoring.{group}[{index}]")
    # File names instead of paths, so that moving a study scores nothing again.
    called = {name: name if file is None else file.name for name, file in file_of.items()}
    limit = scoring.limit
    if isinstance(limit, Mapping):
        limit = {called.get(name, name): most for name, most in limit.items()}
    files = _files_of_tasks([file for file in file_of.values() if file is not None], study_file=study.path)
    return sha256_json(
        {
            "tasks": {group: [called[name] for name in getattr(scoring, group)] for group in ("target", "retention")},
            "limit": limit,
            "batch_size": scoring.batch_size,
            "qualitative": sha256_file(scoring.qualitative) if scoring.qualitative else None,
            "files": sorted({(file.name, sha256_file(file)) for file in files}),
            # Without the keys for the defaults, so that they scored no existing study again.
            **({} if scoring.engine == "hf" else {"engine": scoring.engine}),
            **({} if scoring.precision == AS_TRAINED else {"precision": scoring.precision}),
        }
    )


def task_digest(study: Study, name: str) -> str:
    """Digest of all in a study that determines the score of one of its tasks, as in `scoring_digest`."""
    file = _checked_file(name, study.path, key="scoring")
    files = set() if file is None else _files_of_tasks([file], study_file=study.path)
    return sha256_json(
        {
            "task": name if file is None else file.name,
            "limit": item_limit(study.scoring.limit, name),
            "batch_size": study.scoring.batch_size,
            "files": sorted({(file.name, sha256_file(file)) for file in files}),
        }
    )


def code_in_tasks(study: Study) -> list[str]:
    """A line per task file of the user's that runs code when the study is scored, with what it names.

    The files of config/tasks are part of the project, as its scripts are.
    """
    named = [task_file(name) for name in study.scoring.tasks]
    own = {file.resolve() for file in named if file is not None} - set(TASKS.rglob("*.yaml"))
    # A group names the tasks of the files beside it.
    found = {path for file in own for path in file.parent.glob("*.y*ml")}
    for _ in range(MOST_INCLUDES):
        found |= {path for file in found for path in _included(file)}
    lines = []
    for file in sorted(found):
        code = dict.fromkeys(CODE.findall(_text(file)))
        if code:
            lines.append(f"{file}: this task file runs code when the study is scored ({', '.join(code)})")
    return lines


def _included(file: Path) -> list[Path]:
    return [path for name in INCLUDE.findall(_text(file)) if (path := (file.parent / name).resolve()).is_file()]


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _checked_file(name: str, study_file: Path, *, key: str) -> Path | None:
    file = task_file(name)
    if file is None and name != HELDOUT_LOSS and name not in stock_tasks():
        raise unknown_task(name, where=f"{study_file.name}: {key}", beside=study_file.parent)
    return file


def _files_of_tasks(task_files: list[Path], *, study_file: Path) -> set[Path]:
    """The task files, all files beside them, and the items that they take from elsewhere.

    Which of the files beside it a task needs is only known once it is loaded, so all count. The
    study file may be among them and must not count, or any edit of it would score again; nor must the
    one that a proposed study of its name goes on from.
    """
    beside = {file for folder in {task.parent for task in task_files} for file in folder.iterdir() if file.is_file()}
    elsewhere = {items_file(task) for task in task_files} - {None}
    return {file for file in beside if file.name != study_file.name} | elsewhere


def item_limit(limit: int | Mapping[str, int | None] | None, task: str) -> int | None:
    """Maximum number of items of a task by `scoring.limit`; None for all items.

    `limit` is one number, or a map with the key `others`.
    """
    if isinstance(limit, Mapping):
        return limit.get(task, limit["others"])
    return limit


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


class _Loader(yaml.SafeLoader):
    """Reads a task file without running the functions that it names."""


# lm-eval's own loader would import the module that `!function` names, that is run code of the
# task's author.
_Loader.add_constructor("!function", lambda loader, node: None)


def read_task(file: Path) -> dict[str, Any]:
    """The settings in a task file, with None for its functions."""
    return yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)


def items_file(file: Path) -> Path | None:
    """The existing file of items that a task file names (`dataset_kwargs: {file: …}`), or None."""
    try:
        named = file.parent / read_task(file)["dataset_kwargs"]["file"]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return None  # No such key, or a broken file, which is refused with a better message when the task is built.
    return named.resolve() if named.is_file() else None


@until_next_job
@cache
def _names_in(folder: Path) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for file in sorted(folder.rglob("*.yaml")):
        for name in NAME.findall(file.read_bytes()):
            names.setdefault(name.decode(), file)
    return names
