"""The study file: one complete YAML file, checked against a closed schema, never merged with anything."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loragrid.errors import UserError, one_line
from loragrid.paths import ROOT
from loragrid.study.validation import check_study

AXES = ("learning_rate", "rank", "batch", "model", "seed")


@dataclass(frozen=True)
class Study:
    """A validated study: `name` is the file's stem; paths in `settings` are absolute."""

    name: str
    path: Path
    settings: dict[str, Any]


def load_study(name_or_path: str) -> Study:
    """Load `config/studies/{name}.yaml`, or the file at a path; anything wrong with it is a one-line `UserError`."""
    path = _find(str(name_or_path))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", path.stem):
        raise UserError(
            f"{path}: a study's file name becomes a folder name: use letters, digits, '.', '_' and '-' only"
        )
    settings = _read_yaml(path)
    check_study(settings, path)
    _resolve_paths(settings, path)
    return Study(name=path.stem, path=path, settings=settings)


def _find(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        for folder in (Path.cwd(), ROOT):
            if (folder / name).is_file():
                return (folder / name).resolve()
        raise UserError(f"study file {name} does not exist: check the path")
    path = ROOT / "config" / "studies" / f"{name}.yaml"
    if not re.fullmatch(r"[\w.-]+", name) or not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise UserError(f"study {name!r} is unknown: take one of {known}, or give the path of a .yaml file")
    return path


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key that is no word, and one written twice (PyYAML silently keeps the last)."""


def _strict_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a list or a map stands as a key", key.start_mark)
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is written twice", key.start_mark)
        seen.add(key.value)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _strict_mapping)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({_where(error)}): mend it") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: holds no study: write the keys that config/README.md lists")
    return settings


def _where(error: Exception) -> str:
    """What a YAML parser complains of, with the place; its own text is a quotation over several lines."""
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}" if mark else one_line(str(error))


def _resolve_paths(settings: dict[str, Any], path: Path) -> None:
    """Make the study's paths absolute: looked up beside the study file, then in the project."""

    def resolve(name: str, key: str, folder: bool = False) -> str:
        for parent in (path.parent, ROOT):
            found = (parent / name).expanduser()
            if found.is_dir() if folder else found.is_file():
                return str(found.resolve())
        what = "folder" if folder else "file"
        raise UserError(
            f"{path.name}: {key}: {what} {name} exists neither beside the study file nor in the project: check the path"
        )

    source = settings["data"]["source"]
    if "path" in source:
        source["path"] = resolve(source["path"], "data.source.path")
    for key, entry in settings["models"].items():
        if "path" in entry:
            entry["path"] = resolve(entry["path"], f"models.{key}.path", folder=True)
            if not (Path(entry["path"]) / "config.json").is_file():
                raise UserError(
                    f"{path.name}: models.{key}.path: folder {entry['path']} has no config.json: "
                    "give a model's folder in Hugging Face form"
                )
        if entry["chat_template"] is not None:
            entry["chat_template"] = resolve(entry["chat_template"], f"models.{key}.chat_template")
    scoring = settings["scoring"]
    if scoring["qualitative"] is not None:
        scoring["qualitative"] = resolve(scoring["qualitative"], "scoring.qualitative")
    files = {}
    for group in ("target", "retention"):
        for index, name in enumerate(scoring[group]):
            if name.endswith((".yaml", ".yml")):
                files[name] = scoring[group][index] = resolve(name, f"scoring.{group}[{index}]")
    if isinstance(scoring["limit"], dict):
        scoring["limit"] = {files.get(name, name): most for name, most in scoring["limit"].items()}
