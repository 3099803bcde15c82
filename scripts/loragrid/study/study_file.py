"""The study file: one complete YAML file, checked against a closed schema, never merged with anything."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from loragrid.errors import UserError, one_line
from loragrid.paths import ROOT
from loragrid.study.grid import Cell, expand
from loragrid.study.sections import (
    BaseCase,
    Compare,
    DataSettings,
    Grid,
    ModelEntry,
    Plan,
    Scoring,
    Training,
    Tune,
)
from loragrid.study.validation import check_study


@dataclass(frozen=True)
class Study:
    """A validated study: `name` is the file's stem, `yaml` the file as checked, with absolute paths.

    Identities hash `yaml`; everything else reads the typed sections.
    """

    name: str
    path: Path
    yaml: dict[str, Any]

    @property
    def title(self) -> str:
        """The question in a line."""
        return self.yaml["title"]

    @cached_property
    def data(self) -> DataSettings:
        """Which rows are used and how they are split."""
        return DataSettings.read(self.yaml["data"])

    @cached_property
    def models(self) -> Mapping[str, ModelEntry]:
        """The base models by their keys."""
        return {key: ModelEntry.read(entry) for key, entry in self.yaml["models"].items()}

    @cached_property
    def base_case(self) -> BaseCase:
        """The setting that every axis departs from."""
        return BaseCase.read(self.yaml["base_case"])

    @cached_property
    def grid(self) -> Grid:
        """What is varied."""
        return Grid.read(self.yaml["grid"])

    @cached_property
    def training(self) -> Training:
        """What all runs share."""
        return Training.read(self.yaml["training"])

    @cached_property
    def scoring(self) -> Scoring:
        """How bases and runs are scored."""
        return Scoring.read(self.yaml["scoring"])

    @cached_property
    def compare(self) -> Compare:
        """How differences are judged."""
        return Compare.read(self.yaml["compare"])

    @cached_property
    def tune(self) -> Tune | None:
        """The search; None for a study without one."""
        return None if self.yaml["tune"] is None else Tune.read(self.yaml["tune"])

    @cached_property
    def plan(self) -> Plan:
        """What the compute plan assumes until it is measured."""
        return Plan.read(self.yaml["plan"])

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The training runs, each once, in the order in which they are trained."""
        return expand(self.yaml)

    @property
    def data_sets(self) -> dict[str, str]:
        """Data id → model key, for every tokenised data set that the cells need."""
        return {cell.data: cell.model for cell in self.cells}

    @property
    def bases(self) -> dict[str, str]:
        """Base subject id → model key, for every untrained base that the cells are compared with."""
        return {cell.base: cell.model for cell in self.cells}

    def cell(self, run: str) -> Cell:
        """The cell of that run id; one that the study file does not hold (any more) is a `UserError`."""
        for cell in self.cells:
            if cell.run == run:
                return cell
        raise UserError(
            f"{self.path.name} holds no run {run}: the study file was changed since it was named; run snakemake again"
        )


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
    return Study(name=path.stem, path=path, yaml=settings)


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
