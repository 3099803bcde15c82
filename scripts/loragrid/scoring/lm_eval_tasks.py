"""lm-eval tasks by name: those in config/tasks, files that a study names, and lm-eval's own."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError, first_line, one_line
from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.runtime.code_digest import modules_of
from loragrid.study.task_names import TASKS, stock_tasks, task_file, unknown_task
from loragrid.study.tasks import item_limit

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


@dataclass(frozen=True)
class StudyTask:
    """A task that the study names.

    `name`: its name in every result; `loaded`: lm-eval's task and group objects, None if a shipped
    task could not be built; `reason`: why not (mostly its data, which come from the hub); `digest`:
    of the task's settings, code and items; `limit`: the number of items to score, None for all;
    `places`: name of each of lm-eval's tasks → places of the items to score instead of the first ones.
    """

    name: str
    loaded: dict[str, Any] | None
    reason: str | None
    digest: str
    limit: int | None
    places: Mapping[str, list[int]] | None = None


def find_tasks(names: Sequence[str], *, limit: int | Mapping[str, int | None] | None) -> dict[str, StudyTask]:
    """Build every named task: the study's name for it → `StudyTask`.

    A name is a file in config/tasks, the path of a .yaml file, or one of lm-eval's own. `limit` is
    the study file's: one number or a map by task name. Raises `UserError` for an unknown name and
    for a task file that cannot be built.
    """
    found: dict[str, StudyTask] = {}
    for name in names:
        path = task_file(name)
        if path is None and name not in stock_tasks():
            raise unknown_task(name)
        items = item_limit(limit, name)
        found[name] = _from_lm_eval(name, items) if path is None else _from_file(path, items)
    # Results are stored under a task's own name, which need not be its file's.
    own_names = [task.name for task in found.values()]
    for name in own_names:
        if own_names.count(name) > 1:
            raise UserError(f"scoring: two task files have the name {name!r}. Fix: change the key 'task' in one.")
    return found


@cache
def _manager(*, all_tasks: bool) -> "TaskManager":
    """lm-eval's task manager, with or without its index of all tasks.

    The index takes seconds to read, and only groups and tags need it.
    """
    from lm_eval.tasks import TaskManager

    include = TASKS if all_tasks else None
    return TaskManager(include_path=include, include_defaults=all_tasks)


def _from_file(path: Path, limit: int | None) -> StudyTask:
    settings = _read(path)
    if isinstance(settings.get("dataset_kwargs"), dict) and "data_files" in settings["dataset_kwargs"]:
        files = _absolute_paths(settings["dataset_kwargs"]["data_files"], path)
        settings["dataset_kwargs"] = settings["dataset_kwargs"] | {"data_files": files}
    _check_metrics(settings, path)
    try:
        loaded = _manager(all_tasks="group" in settings).load([settings])
        digest = _digest(loaded, limit, code=_code_beside(path))
    except Exception as error:  # a bad file can make lm-eval, datasets or its own functions raise anything
        raise UserError(
            f"task file {path}: cannot be built ({_summary(error)}). Fix: correct the file or its data file."
        ) from None
    name = settings.get("group") or settings["task"]
    return StudyTask(name=name, loaded=loaded, reason=None, digest=digest, limit=limit)


def _read(path: Path) -> dict[str, Any]:
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        settings = load_yaml(path, resolve_func=True)
    except (OSError, ValueError, ImportError, AttributeError, SyntaxError, yaml.YAMLError) as error:
        raise UserError(f"task file {path}: cannot be read ({_summary(error)}). Fix: correct the file.") from None
    if not ("task" in settings or "group" in settings):
        raise UserError(f"task file {path}: no key 'task'. Fix: give the task a name.")
    return settings


def _check_metrics(settings: dict[str, Any], path: Path) -> None:
    """Raise `UserError` for an unknown metric."""
    # lm-eval would look for code of that name on the hub, and score nothing.
    import lm_eval.api.metrics  # registers its metrics  # noqa: F401
    from lm_eval.api.registry import metric_registry

    if settings.get("process_results") is not None:
        return
    for metric in settings.get("metric_list") or ():
        name = metric.get("metric") if isinstance(metric, dict) else None
        if not isinstance(name, str) or name in metric_registry or metric.get("hf_evaluate"):
            continue
        fix = "choose one of lm-eval's metrics, or write process_results"
        close = difflib.get_close_matches(name, list(metric_registry), n=3)
        if close:
            fix = f"did you mean {' or '.join(close)}?"
        raise UserError(f"task file {path}: metric_list: unknown metric {name!r}. Fix: {fix}")


def _from_lm_eval(name: str, limit: int | None) -> StudyTask:
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        path = stock_tasks()[name]
        # A file with this task alone is loaded directly; a group or tag needs the index.
        is_single = load_yaml(path, resolve_func=False).get("task") == name
        loaded = _manager(all_tasks=not is_single).load([str(path) if is_single else name])
        _check_sentence_rules(loaded)
        digest = _digest(loaded, limit, code=[])
        return StudyTask(name=name, loaded=loaded, reason=None, digest=digest, limit=limit)
    except Exception as error:  # no network, a gated or moved data set, a missing optional package …
        reason = f"cannot be built: {_summary(error)}"
        return StudyTask(name=name, loaded=None, reason=reason, digest="", limit=limit)


def _check_sentence_rules(loaded: dict[str, Any]) -> None:
    """Raise LookupError if IFEval is loaded and NLTK's punkt_tab, which it needs, is missing."""
    # lm-eval tries to download punkt_tab and continues without it. The task would then fail after
    # all answers are generated, which is most of its time.
    if not any("ifeval" in name for name in loaded["tasks"]):
        return
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        raise LookupError(
            "NLTK's punkt_tab is missing and cannot be downloaded. "
            "Fix: on a machine with network, run python -m nltk.downloader punkt_tab"
        ) from None


def _absolute_paths(files: Any, path: Path) -> Any:
    """Data files given relative to their task file, made absolute for any working directory."""
    if isinstance(files, dict):
        return {split: _absolute_paths(value, path) for split, value in files.items()}
    if isinstance(files, list):
        return [_absolute_paths(value, path) for value in files]
    local = path.parent / files
    return str(local) if local.is_file() else files


def _code_beside(path: Path) -> list[str]:
    """Digests of the Python files beside a task file and of the project's modules they import."""
    modules = {module for file in path.parent.glob("*.py") for module in modules_of(file)}
    return sorted(sha256_file(module) for module in modules)


def _digest(loaded: dict[str, Any], limit: int | None, *, code: list[str]) -> str:
    """Digest of all that determines a task's requests and scores: settings, items, code beside it."""
    tasks = {}
    for name, task in sorted(loaded["tasks"].items()):
        documents = [doc for _, doc in task.doc_iterator(limit=limit)]
        tasks[name] = [task_settings(task), json.loads(json.dumps(documents, default=_type_name))]
    return sha256_json([tasks, code])


def task_settings(task: Any) -> dict[str, Any]:
    """A task's settings as plain JSON without this machine's paths; functions as their source."""
    settings = json.loads(json.dumps(task.dump_config(), default=_type_name))
    settings.get("metadata", {}).pop("config_source", None)
    files = settings.get("dataset_kwargs", {}).get("data_files")
    if files is not None:
        settings["dataset_kwargs"]["data_files"] = _names_only(files)
    return settings


def _names_only(files: Any) -> Any:
    if isinstance(files, dict):
        return {split: _names_only(value) for split, value in files.items()}
    if isinstance(files, list):
        return [_names_only(value) for value in files]
    return files if "://" in files else Path(files).name


def _type_name(value: Any) -> str:
    """A name for a value that JSON cannot hold; its repr might contain a memory address."""
    return getattr(value, "__qualname__", None) or type(value).__qualname__


def _summary(error: BaseException) -> str:
    """An exception's type and the first line of its message."""
    # The type is needed: a KeyError's message is a bare key.
    if not str(error).strip():
        return type(error).__name__
    return one_line(f"{type(error).__name__}: {first_line(error)}")
