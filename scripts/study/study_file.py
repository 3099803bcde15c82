"""The study file: one complete YAML file, checked against a closed schema, never merged with anything."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from study.errors import UserError
from study.search_space import check_tune

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "workflow" / "schemas" / "study.schema.yaml"
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
    _check_schema(settings, path)
    _check_meaning(settings, path)
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
    """YAML that refuses a key written twice (PyYAML silently keeps the last)."""


def _strict_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict:
    seen = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is written twice", key.start_mark)
        seen.add(key.value)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _strict_mapping)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: holds no study: a study file is a map of keys, see config/README.md")
    return settings


def read_schema() -> dict[str, Any]:
    """The closed JSON schema of a study file."""
    return yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))


def _check_schema(settings: dict[str, Any], path: Path) -> None:
    # JSON Schema counts 16.0 as an integer; a rank or a batch written so is more likely a slip.
    whole = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=whole)(read_schema())
    errors = list(validator.iter_errors(settings))
    if errors:
        error = min(errors, key=lambda e: [str(part) for part in e.absolute_path])
        raise UserError(f"{path.name}: {_explain(_deepest(error))}")


def _deepest(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """For `oneOf`, the complaint of the alternative that the user most likely meant: the one with the fewest complaints."""
    while error.context:
        branches: dict[int, list] = {}
        for child in error.context:
            branches.setdefault(child.relative_schema_path[0], []).append(child)
        error = min(branches.values(), key=lambda found: (len(found), -len(found[0].absolute_path)))[0]
    return error


def _explain(error: jsonschema.ValidationError) -> str:
    """One line: the key, what is wrong with it, and the mend."""
    key = _key(error.absolute_path)
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        unknown = sorted(str(name) for name in error.instance if name not in known)[0]
        close = difflib.get_close_matches(unknown, known, n=1)
        mend = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"
        return f"unknown key {_key([*error.absolute_path, unknown])!r}: {mend}"
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        return (
            f"key {_key([*error.absolute_path, missing])!r} is missing: a study file is complete, see config/README.md"
        )
    if error.validator == "type" and isinstance(error.instance, str) and _is_number(error.instance):
        return f"{key}: {error.instance!r} is text to YAML: write it as a number, {_as_yaml_number(error.instance)}"
    if error.validator in ("minItems", "minProperties") and not error.instance:
        return f"{key}: is empty: give at least one value"
    description = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
    hint = f" ({' '.join(description.split())})" if description else ""
    return f"{key}: {error.message[:300]}{hint}"


def _key(parts: Any) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".") or "the study"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _as_yaml_number(text: str) -> str:
    if re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", text):
        mantissa, exponent = re.split("[eE]", text)
        sign = "" if exponent[0] in "+-" else "+"
        return f"{mantissa}.0e{sign}{exponent}"
    return text.strip()


def _check_meaning(settings: dict[str, Any], path: Path) -> None:
    """What a schema cannot say: numbers are finite and no booleans, names refer to something, groups do not overlap."""
    models, base, grid = settings["models"], settings["base_case"], settings["grid"]
    _check_finite(settings, path, [])
    for key, named in (("base_case.model", [base["model"]]), ("grid.model", grid["model"])):
        for name in named:
            if name not in models:
                raise UserError(f"{path.name}: {key}: {name!r} is no key of models: take one of {', '.join(models)}")
    if grid["design"] == "factorial":
        for axis in AXES:
            if base[axis] not in grid[axis]:
                raise UserError(
                    f"{path.name}: grid.{axis}: a factorial grid must hold the base case's {base[axis]}: add it"
                )
    twice = set(settings["scoring"]["target"]) & set(settings["scoring"]["retention"])
    if twice:
        raise UserError(f"{path.name}: scoring: task {min(twice)!r} is both target and retention: keep it in one list")
    _check_limits(settings["scoring"], path)
    check_tune(settings["tune"], path)
    data = settings["data"]
    if data["max_rows"] is not None and data["heldout_rows"] > data["max_rows"] / 2:
        raise UserError(
            f"{path.name}: data.heldout_rows: {data['heldout_rows']} is more than half of max_rows: lower it"
        )


def _check_limits(scoring: dict[str, Any], path: Path) -> None:
    """Every task that has a limit of its own is one that the study scores."""
    if isinstance(scoring["limit"], dict):
        for task in scoring["limit"]:
            if task not in ("others", *scoring["target"], *scoring["retention"]):
                raise UserError(
                    f"{path.name}: scoring.limit: {task!r} is neither in target nor in retention: add it there or drop it"
                )


def _check_finite(value: Any, path: Path, key: list) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _check_finite(item, path, [*key, name])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_finite(item, path, [*key, index])
    elif isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise UserError(f"{path.name}: {_key(key)}: {value} is no finite number: give one")


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
        if entry["chat_template"] is not None:
            entry["chat_template"] = resolve(entry["chat_template"], f"models.{key}.chat_template")
    scoring = settings["scoring"]
    if scoring["qualitative"] is not None:
        scoring["qualitative"] = resolve(scoring["qualitative"], "scoring.qualitative")
    for group in ("target", "retention"):
        scoring[group] = [
            resolve(name, f"scoring.{group}") if name.endswith((".yaml", ".yml")) else name for name in scoring[group]
        ]
