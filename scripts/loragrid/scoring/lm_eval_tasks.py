"""Tasks by name: the project's own in config/tasks, any file the study names, any task that ships with lm-eval."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError, first_line, one_line
from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.runtime.code_digest import modules_of
from loragrid.study.tasks import TASKS, item_limit, stock_tasks, task_file, unknown_task

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


@dataclass(frozen=True)
class Found:
    """A task that the study names. `name` is what it is called in every result; `loaded` is lm-eval's (its tasks and
    groups as built objects), None when a shipped task could not be built, with the `reason` (its data, mostly:
    they come from the hub). `digest` stands for the task's settings, code and items; `limit` is the most items to score."""

    name: str
    loaded: dict[str, Any] | None
    reason: str | None
    digest: str
    limit: int | None


def find_tasks(names: Sequence[str], *, limit: int | dict[str, int | None] | None) -> dict[str, Found]:
    """Build every named task: study's name → `Found`. Knows names of config/tasks, paths of .yaml files, lm-eval's own names.
    `limit` is that of the study file: one number, or a map by task name.

    An unknown name, or a task file of the user's that cannot be built, is a `UserError` before anything is scored.
    """
    found: dict[str, Found] = {}
    for name in names:
        path = task_file(name)
        if path is None and name not in stock_tasks():
            raise unknown_task(name)
        most = item_limit(limit, name)
        found[name] = _shipped(name, most) if path is None else _from_file(path, most)
    called = [task.name for task in found.values()]
    for name in called:
        if called.count(name) > 1:
            raise UserError(f"scoring: two task files call themselves {name!r}: give one another name (its key 'task')")
    return found


@cache
def _manager(*, all_tasks: bool) -> "TaskManager":
    """lm-eval's task manager. Its index of all tasks takes seconds to read, and only groups and tags need it."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=TASKS if all_tasks else None, include_defaults=all_tasks)


def _read(path: Path) -> dict[str, Any]:
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        settings = load_yaml(path, resolve_func=True)
    except (OSError, ValueError, ImportError, AttributeError, SyntaxError, yaml.YAMLError) as error:
        raise UserError(f"task file {path}: cannot be read ({_type_and_line(error)}): mend it") from None
    if not ("task" in settings or "group" in settings):
        raise UserError(f"task file {path}: has no key 'task': give the task a name")
    return settings


def _from_file(path: Path, limit: int | None) -> Found:
    settings = _read(path)
    if isinstance(settings.get("dataset_kwargs"), dict) and "data_files" in settings["dataset_kwargs"]:
        files = _beside(settings["dataset_kwargs"]["data_files"], path)
        settings["dataset_kwargs"] = settings["dataset_kwargs"] | {"data_files": files}
    _check_metrics(settings, path)
    try:
        loaded = _manager(all_tasks="group" in settings).load([settings])
        digest = _digest(loaded, limit, code=_code_beside(path))
    except Exception as error:  # whatever lm-eval, datasets or the task's own functions raise for a bad file
        raise UserError(
            f"task file {path}: cannot be built ({_type_and_line(error)}): mend it, or its data file"
        ) from None
    return Found(name=settings.get("group") or settings["task"], loaded=loaded, reason=None, digest=digest, limit=limit)


def _check_metrics(settings: dict[str, Any], path: Path) -> None:
    """Refuse a metric that lm-eval does not know: it would look for code of that name on the hub, and score nothing."""
    import lm_eval.api.metrics  # registers its metrics  # noqa: F401
    from lm_eval.api.registry import metric_registry

    if settings.get("process_results") is not None:
        return
    for metric in settings.get("metric_list") or ():
        name = metric.get("metric") if isinstance(metric, dict) else None
        if isinstance(name, str) and name not in metric_registry and not metric.get("hf_evaluate"):
            close = difflib.get_close_matches(name, list(metric_registry), n=3)
            mend = f"did you mean {' or '.join(close)}?" if close else "take one of lm-eval's, or write process_results"
            raise UserError(f"task file {path}: metric_list: metric {name!r} is unknown: {mend}")


def _shipped(name: str, limit: int | None) -> Found:
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        path = stock_tasks()[name]
        alone = load_yaml(path, resolve_func=False).get("task") == name
        loaded = _manager(all_tasks=not alone).load([str(path) if alone else name])
        _check_sentence_rules(loaded)
        digest = _digest(loaded, limit, code=[])
        return Found(name=name, loaded=loaded, reason=None, digest=digest, limit=limit)
    except Exception as error:  # no network, a gated or moved data set, a missing optional package …
        return Found(name=name, loaded=None, reason=f"cannot be built: {_type_and_line(error)}", digest="", limit=limit)


def _check_sentence_rules(loaded: dict[str, Any]) -> None:
    """IFEval counts words and sentences by NLTK's punkt_tab. lm-eval tries to download it and goes on without it: then the
    task would fail when its answers are written, which is most of its time."""
    if not any("ifeval" in name for name in loaded["tasks"]):
        return
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        raise LookupError(
            "NLTK's punkt_tab is not on this machine and cannot be downloaded: where there is a network, run "
            "python -m nltk.downloader punkt_tab"
        ) from None


def _beside(files: Any, path: Path) -> Any:
    """Data files given relative to their task file, made absolute, so that it works from any working directory."""
    if isinstance(files, dict):
        return {split: _beside(value, path) for split, value in files.items()}
    if isinstance(files, list):
        return [_beside(value, path) for value in files]
    local = path.parent / files
    return str(local) if local.is_file() else files


def _code_beside(path: Path) -> list[str]:
    """Digests of the Python files beside a task file and of this project's modules that they import."""
    modules = {module for file in path.parent.glob("*.py") for module in modules_of(file)}
    return sorted(sha256_file(module) for module in modules)


def _digest(loaded: dict[str, Any], limit: int | None, *, code: list[str]) -> str:
    """What determines a task's requests and scores: settings, the items themselves, and code beside it."""
    tasks = {}
    for name, task in sorted(loaded["tasks"].items()):
        documents = [doc for _, doc in task.doc_iterator(limit=limit)]
        tasks[name] = [settings_of(task), json.loads(json.dumps(documents, default=_named))]
    return sha256_json([tasks, code])


def settings_of(task: Any) -> dict[str, Any]:
    """A task's settings as plain JSON without paths of this machine; functions as their source."""
    settings = json.loads(json.dumps(task.dump_config(), default=_named))
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


def _named(value: Any) -> str:
    """For what JSON cannot hold: its name, since a repr may hold an address in memory."""
    return getattr(value, "__qualname__", None) or type(value).__qualname__


def _type_and_line(error: BaseException) -> str:
    # A KeyError's message is the bare key: its type makes it readable.
    return one_line(f"{type(error).__name__}: {first_line(error)}")
