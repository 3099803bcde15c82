"""Paths in a study file, made absolute."""

from pathlib import Path
from typing import Any

from loragrid.paths import ROOT
from loragrid.study.schema import study_error


def resolve_paths(settings: dict[str, Any], path: Path) -> None:
    """Make paths absolute: they are looked up beside the study file, then in the project."""
    for name, entry in settings["data"].items():
        source = entry.get("source", {})
        if "path" in source:
            source["path"] = _resolve(path, f"data.{name}.source.path", source["path"], kinds=("file", "folder"))
    for name, entry in settings["adopt"].items():
        if "path" in entry:
            entry["path"] = _resolve(path, f"adopt.{name}.path", entry["path"], kinds=("folder",))
    for name, entry in settings["models"].items():
        _resolve_model(entry, f"models.{name}", path)
    _resolve_scoring(settings["scoring"], settings["tune"], path)


def _resolve_scoring(scoring: dict[str, Any], tune: dict[str, Any] | None, path: Path) -> None:
    if scoring["qualitative"] is not None:
        scoring["qualitative"] = _resolve(path, "scoring.qualitative", scoring["qualitative"])
    # The limits and the search's objective name a task file as the lists do, so they get the same
    # absolute path.
    resolved = {}
    for group in ("target", "retention"):
        for index, name in enumerate(scoring[group]):
            if name.endswith((".yaml", ".yml")):
                resolved[name] = _resolve(path, f"scoring.{group}[{index}]", name)
                scoring[group][index] = resolved[name]
    if isinstance(scoring["limit"], dict):
        scoring["limit"] = {resolved.get(name, name): most for name, most in scoring["limit"].items()}
    if tune is not None:
        task, colon, metric = tune["objective"].rpartition(":")
        tune["objective"] = f"{resolved.get(task, task)}{colon}{metric}"


def _resolve_model(entry: dict[str, Any], key: str, path: Path) -> None:
    if "path" in entry:
        entry["path"] = _resolve(path, f"{key}.path", entry["path"], kinds=("folder",))
        if not (Path(entry["path"]) / "config.json").is_file():
            problem = f"folder without a config.json ({entry['path']})"
            raise study_error(path, f"{key}.path", problem, fix="give a model folder in Hugging Face format")
    if entry["chat_template"] is not None:
        entry["chat_template"] = _resolve(path, f"{key}.chat_template", entry["chat_template"])


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


def _resolve(path: Path, key: str, name: str, *, kinds: tuple[str, ...] = ("file",)) -> str:
    """The absolute path of a file or a folder, one of the `kinds`, that the study file names under `key`."""
    # The study's own folder comes first, so that a study and its files can be moved together.
    for parent in (path.parent, ROOT):
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
    raise study_error(path, key, problem, fix="check the path")
