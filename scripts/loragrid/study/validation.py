"""What a study file must hold: each rule that it breaks is one line that names the key, what is wrong and the mend.

Only judges and changes nothing, so that `loragrid.runtime.code_digest` leaves this module out of every stage's code.
"""

import difflib
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.study.search_space import check_tune

SCHEMA = ROOT / "workflow" / "schemas" / "study.schema.yaml"


def check_study(settings: dict[str, Any], path: Path) -> None:
    """Refuse settings, as read from a study file, that break the schema or make no sense together: a one-line `UserError`."""
    _check_schema(settings, path)
    _check_meaning(settings, path)


def read_schema() -> dict[str, Any]:
    """The closed JSON schema of a study file."""
    return yaml.load(SCHEMA.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


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
    """For `oneOf`, the complaint of the alternative that the user most likely meant: the one with the fewest complaints.
    An alternative that takes no value of that kind was not meant; where none was, the complaint about all of them."""
    while error.context:
        branches: dict[int, list] = {}
        for child in error.context:
            branches.setdefault(child.relative_schema_path[0], []).append(child)
        meant = [found for found in branches.values() if not _of_another_kind(found[0], error)]
        if not meant:
            break
        error = min(meant, key=lambda found: (len(found), -len(found[0].absolute_path)))[0]
    return error


def _of_another_kind(child: jsonschema.ValidationError, error: jsonschema.ValidationError) -> bool:
    return child.validator in ("type", "const") and child.absolute_path == error.absolute_path


KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list, such as [1, 2]",
    "object": "a map of keys to values",
    "null": "null",
}
MENDS = {
    "type": "give one",
    "enum": "take one of them",
    "oneOf": "give one of them",
    "minimum": "give a larger one",
    "exclusiveMinimum": "give a larger one",
    "maximum": "give a smaller one",
    "exclusiveMaximum": "give a smaller one",
    "minItems": "give more",
    "maxItems": "give fewer",
    "maxProperties": "give only one",
}


def _explain(error: jsonschema.ValidationError) -> str:
    """One line: the key, what is wrong with it, and the mend."""
    key = _key(error.absolute_path)
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        unknown = sorted(str(name) for name in error.instance if name not in known)[0]
        close = difflib.get_close_matches(unknown, known, n=1)
        mend = f"did you mean {close[0]!r}?" if close else f"take one of {', '.join(known)}"
        return f"unknown key {_key([*error.absolute_path, unknown])!r}: {mend}"
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        return f"key {_key([*error.absolute_path, missing])!r} is missing: write it, as config/README.md says"
    if error.validator in ("type", "oneOf") and isinstance(error.instance, str) and _is_number(error.instance):
        return f"{key}: {error.instance!r} is text to YAML: write it as a number, {_as_yaml_number(error.instance)}"
    if error.validator_value == "integer" and isinstance(error.instance, float) and error.instance.is_integer():
        return (
            f"{key}: {error.instance!r} has a decimal point where a whole number is needed: write {error.instance:.0f}"
        )
    if error.validator in ("minItems", "minProperties") and not error.instance:
        return f"{key}: is empty: give at least one value"
    if error.validator == "uniqueItems":
        twice = next(item for item in error.instance if error.instance.count(item) > 1)
        return f"{key}: holds {twice!r} twice: keep it once"
    if error.validator == "oneOf":
        said = f"{error.instance!r} is none of its values"
    else:
        said = _of_kind(error) if error.validator == "type" else error.message
    description = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
    hint = f" ({' '.join(description.split())})" if description else ""
    return f"{key}: {said[:300]}: {MENDS.get(error.validator, 'mend it')}{hint}"


def _of_kind(error: jsonschema.ValidationError) -> str:
    """Of which kind a value is not, in YAML's words."""
    kinds = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
    value = error.instance
    found = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return f"{found} is not {' or '.join(KINDS[kind] for kind in kinds)}"


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
        for axis, value in base.items():
            if value not in grid[axis]:
                raise UserError(f"{path.name}: grid.{axis}: a factorial grid must hold the base case's {value}: add it")
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
