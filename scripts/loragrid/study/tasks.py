"""The scoring tasks of a study: their files, and a digest of all that determines a score."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from loragrid.errors import raise_errors
from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.study.sections import AS_TRAINED
from loragrid.study.study_file import Study
from loragrid.study.task_names import TASKS, task_file, unknown_tasks

# Code that a task file runs: functions of the modules beside it, metrics that lm-eval takes from the hub, and Python's
# internals in its templates, which lm-eval renders without a sandbox.
CODE = re.compile(r"(!function[ \t]+[\w.]+|hf_evaluate:[ \t]*[Tt]rue|[.'\"]__[a-z]+__|\|[ \t]*attr\b)")
MOST_INCLUDES = 5  # one within the other
INCLUDE = re.compile(r"^include:[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)


def scoring_digest(study: Study) -> str:
    """Digest of all in a study that determines a score; a change of it scores everything again.

    It covers task names, limits, the engine, the precision, the batch size (which decides what is padded together), and
    the content of the prompts, of task files and of the files beside them, but no paths. `threads` does
    not count: a forward pass gives the same bits with any number. Task names that are neither a
    file nor in config/tasks nor one of lm-eval's are a `UserError`, raised here hours before scoring
    starts.
    """
    scoring = study.scoring
    raise_errors(unknown_tasks({group: getattr(scoring, group) for group in ("target", "retention")}, study.path))
    file_of = {name: task_file(name) for name in (*scoring.target, *scoring.retention)}
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
    raise_errors(unknown_tasks({"target": [name]}, study.path))
    file = task_file(name)
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
