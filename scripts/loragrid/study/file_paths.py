"""Paths in a study file, made absolute."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, one_line, raise_errors
from loragrid.paths import ROOT
from loragrid.study.schema import study_error


def resolve_paths(settings: dict[str, Any], path: Path) -> None:
    """Make paths absolute: they are looked up beside the study file, then in the project.

    Raises a `UserError` with a line for each path that leads nowhere.
    """
    paths = _Paths(path)
    paths.resolve_all(settings)
    raise_errors(paths.errors)


def wrong_paths(settings: Mapping[str, Any], path: Path) -> list[UserError]:
    """An error for each path in complete settings that leads nowhere."""
    paths = _Paths(path)
    paths.resolve_all(copy.deepcopy(dict(settings)))
    return paths.errors


class _Paths:
    """The paths of a study file: those that lead somewhere are made absolute, each other one is an error."""

    def __init__(self, study_file: Path) -> None:
        self.study_file, self.errors = study_file, list[UserError]()

    def resolve_all(self, settings: dict[str, Any]) -> None:
        for name, entry in settings["data"].items():
            source = entry.get("source", {})
            if "path" in source:
                key = f"data.{name}.source.path"
                source["path"] = self._resolve(key, source["path"], kinds=("file", "folder"))
        for name, entry in settings["adopt"].items():
            if "path" in entry:
                entry["path"] = self._resolve(f"adopt.{name}.path", entry["path"], kinds=("folder",))
        for name, entry in settings["models"].items():
            self._resolve_model(entry, f"models.{name}")
        self._resolve_scoring(settings["scoring"], settings["tune"])

    def _resolve_scoring(self, scoring: dict[str, Any], tune: dict[str, Any] | None) -> None:
        if scoring["qualitative"] is not None:
            scoring["qualitative"] = self._resolve("scoring.qualitative", scoring["qualitative"])
        # The limits and the search's objective name a task file as the lists do, so they get the same
        # absolute path.
        resolved = {}
        for group in ("target", "retention"):
            for index, name in enumerate(scoring[group]):
                if name.endswith((".yaml", ".yml")):
                    resolved[name] = self._resolve(f"scoring.{group}[{index}]", name)
                    scoring[group][index] = resolved[name]
        if isinstance(scoring["limit"], dict):
            scoring["limit"] = {resolved.get(name, name): most for name, most in scoring["limit"].items()}
        if tune is not None:
            task, colon, metric = tune["objective"].rpartition(":")
            tune["objective"] = f"{resolved.get(task, task)}{colon}{metric}"

    def _resolve_model(self, entry: dict[str, Any], key: str) -> None:
        if "path" in entry:
            before = len(self.errors)
            entry["path"] = self._resolve(f"{key}.path", entry["path"], kinds=("folder",))
            problem = _no_model_folder(Path(entry["path"])) if len(self.errors) == before else None
            if problem is not None:
                problem, fix = f"{problem} ({entry['path']})", "give a model folder in Hugging Face format"
                self.errors.append(study_error(self.study_file, f"{key}.path", problem, fix=fix))
        if entry["chat_template"] is not None:
            entry["chat_template"] = self._resolve(f"{key}.chat_template", entry["chat_template"])

    def _resolve(self, key: str, name: str, *, kinds: tuple[str, ...] = ("file",)) -> str:
        """The absolute path of a file or a folder, one of the `kinds`, that the study file names under `key`.

        A path that leads nowhere stays as it is.
        """
        # The study's own folder comes first, so that a study and its files can be moved together.
        for parent in (self.study_file.parent, ROOT):
            found = parent / name
            try:
                found = found.expanduser()
                exists = ("file" in kinds and found.is_file()) or ("folder" in kinds and found.is_dir())
            except (OSError, RuntimeError):
                # A name that is too long for the file system, or the home folder of nobody (`~x`).
                exists = False
            if exists:
                return str(found.resolve())
        problem = f"{' or '.join(kinds)} not found, neither beside the study file nor in the project ({name})"
        self.errors.append(study_error(self.study_file, key, problem, fix="check the path"))
        return name


def _no_model_folder(folder: Path) -> str | None:
    """Why a folder is none of a model, by its config.json; None if it may be one."""
    file = folder / "config.json"
    if not file.is_file():
        return "folder without a config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return f"config.json cannot be read as JSON: {one_line(str(error))[:100]}"
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        return "config.json is no model configuration, which is a map with a model_type"
    return None


def visible_files(folder: Path) -> list[Path]:
    """The files in a folder of data and in the folders within it, in the order of their paths.

    Hidden files and folders are left out: file managers, Git and network drives leave them anywhere.
    """
    found = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            found[parts] = path
    return [found[parts] for parts in sorted(found)]
