"""The schema of a study file, and its errors in one line.

The form of an error is `FILE: KEY: what is wrong (value). Fix: what to do.`
"""

import difflib
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT

# All trials of a search train one loaded base on one tokenised data set, with one seed; it has a
# budget of its own.
NOT_SEARCHED = (
    *("model", "precision", "compute_dtype", "backend", "threads", "seed"),
    *("data", "max_length_tokens", "loss_on", "budget", "evaluations"),
)
LONGEST_PART = 700  # characters of a part of a message
SCHEMA = ROOT / "workflow" / "schemas" / "study.schema.yaml"
TYPE_NAMES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a map of keys to values",
    "null": "null",
}
# JSON Schema keyword → (what is wrong, fix); {limit} is the keyword's value in the schema.
RULES = {
    "minimum": ("below the minimum of {limit}", "give {limit} or more"),
    "exclusiveMinimum": ("not above {limit}", "give a number above {limit}"),
    "maximum": ("above the maximum of {limit}", "give {limit} or less"),
    "exclusiveMaximum": ("not below {limit}", "give a number below {limit}"),
    "minItems": ("too few values", "give at least {limit}"),
    "maxItems": ("too many values", "give at most {limit}"),
    "maxProperties": ("too many keys", "keep {limit}"),
    "minLength": ("empty text", "give a text"),
    "maxLength": ("longer than {limit} characters", "shorten it"),
    "pattern": ("not in the right form", "correct it"),
    "not": ("not allowed here", "correct it"),
    "oneOf": ("not an allowed value", "give an allowed value"),
}


@cache
def read_schema() -> dict[str, Any]:
    """The closed JSON schema of a study file; shared, so no caller may change it."""
    # The C parser, where PyYAML has it, saves a noticeable part of every call of snakemake.
    schema = yaml.load(SCHEMA.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    _derive(schema)
    return schema


def _derive(schema: dict[str, Any]) -> None:
    """Add what follows from the settings of `base_case`: axes, departures and search spaces.

    So a new setting is one entry of the schema.
    """
    settings = schema["properties"]["base_case"]["properties"]
    grid, tune = schema["properties"]["grid"]["properties"], schema["properties"]["tune"]["properties"]
    space = tune["spaces"]["additionalProperties"]["properties"]
    for name, node in settings.items():
        plain = {key: value for key, value in node.items() if key != "default"}
        grid["axes"]["properties"][name] = {
            "description": f"Values to try. {node['description']}",
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": plain,
        }
        schema["$defs"]["departure"]["properties"][name] = plain
        if name not in NOT_SEARCHED:
            space[name] = _searched(plain)


def _searched(node: dict[str, Any]) -> dict[str, Any]:
    """The schema of a setting in a search space: choices, and a range if it is a number."""
    forms = [
        {
            "additionalProperties": False,
            "required": ["choices"],
            "properties": {"choices": {"type": "array", "minItems": 1, "uniqueItems": True, "items": node}},
        }
    ]
    number = next((form for form in node.get("oneOf", [node]) if form.get("type") in ("number", "integer")), None)
    if number is not None:
        bound = {key: value for key, value in number.items() if key != "description"}
        why = "Whether every order of magnitude is equally likely. Off by default, as in Optuna."
        log = {"description": why, "type": "boolean", "default": False}
        forms.insert(
            0,
            {
                "additionalProperties": False,
                "required": ["low", "high"],
                "properties": {"low": bound, "high": bound, "log": log},
            },
        )
    return {"description": node["description"], "type": "object", "oneOf": forms}


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """A schema node, or the definition that it refers to."""
    reference = node.get("$ref")
    return node if reference is None else read_schema()["$defs"][reference.removeprefix("#/$defs/")]


def study_error(path: Path, key: str | None, problem: str, *, fix: str) -> UserError:
    """The error about a key of a study file, or about the whole file if `key` is None."""
    place = path.name if key is None else f"{path.name}: {_short(key)}"
    return UserError(f"{place}: {_short(problem)}. Fix: {_short(fix)}.")


def _short(text: str) -> str:
    """The text without its middle if a value in it is too long to read."""
    if len(text) <= LONGEST_PART:
        return text
    return f"{text[: LONGEST_PART - 100]} … {text[-90:]}"


def one_of(names: Iterable[str]) -> str:
    """The fix for an unknown name: the names to choose from."""
    return f"use one of {', '.join(names)}"


def check_schema(settings: dict[str, Any], path: Path) -> None:
    """Raise a one-line `UserError` about the first key that breaks the schema."""
    # JSON Schema counts 16.0 as an integer; a rank or a batch size written like that is more likely
    # a slip.
    strict_integers = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    kind = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=strict_integers)
    errors = list(kind(read_schema()).iter_errors(settings))
    if errors:
        # One error at a time, the same on every call: later ones often only follow from it.
        first = min(errors, key=lambda error: [str(part) for part in error.absolute_path])
        raise _schema_error(_most_relevant(first), path)


def _most_relevant(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """For `oneOf`, the error of the alternative that the user most likely meant.

    That is the one with the fewest errors. An alternative that takes no value of this type was not
    meant; if that holds for all, the error about `oneOf` itself.
    """
    while error.context:
        alternatives: dict[int, list[jsonschema.ValidationError]] = {}
        for child in error.context:
            alternatives.setdefault(child.relative_schema_path[0], []).append(child)
        meant = [found for found in alternatives.values() if not _rejects_type(found[0], error)]
        if not meant:
            break
        error = min(meant, key=lambda found: (len(found), -len(found[0].absolute_path)))[0]
    return error


def _rejects_type(child: jsonschema.ValidationError, error: jsonschema.ValidationError) -> bool:
    return child.validator in ("type", "const") and child.absolute_path == error.absolute_path


def _schema_error(error: jsonschema.ValidationError, path: Path) -> UserError:
    rule, value, limit = error.validator, error.instance, error.validator_value
    key = dotted_key(error.absolute_path)
    if rule == "additionalProperties":
        return _unknown_key(error, path)
    if rule == "required":
        missing = next(name for name in limit if name not in value)
        key = dotted_key([*error.absolute_path, missing])
        return study_error(path, key, "missing", fix="add it as described in config/README.md")
    if rule in ("type", "oneOf", "pattern") and isinstance(value, str) and _is_number(value):
        fix = f"write {_yaml_number(value)} without quotes"
        return study_error(path, key, f"text instead of a number ({value!r})", fix=fix)
    if limit == "integer" and isinstance(value, float) and value.is_integer():
        return study_error(path, key, f"has a decimal point ({value!r})", fix=f"write the whole number {value:.0f}")
    if rule in ("minItems", "minProperties") and not value:
        return study_error(path, key, "empty", fix="give at least one value")
    if rule == "uniqueItems":
        twice = next(item for item in value if value.count(item) > 1)
        return study_error(path, key, f"has a value twice ({twice!r})", fix="keep it once")
    return _value_error(error, path)


def _unknown_key(error: jsonschema.ValidationError, path: Path) -> UserError:
    known = sorted(error.schema.get("properties", {}))
    unknown = sorted(str(name) for name in error.instance if name not in known)[0]
    close = difflib.get_close_matches(unknown, known, n=1)
    fix = one_of(known)
    if close:
        fix = f"write {close[0]}"
    return study_error(path, dotted_key([*error.absolute_path, unknown]), "unknown key", fix=fix)


def _value_error(error: jsonschema.ValidationError, path: Path) -> UserError:
    """The error about a value of a wrong type or outside its bounds, with the key's description."""
    rule, limit = error.validator, error.validator_value
    if rule == "type":
        names = [limit] if isinstance(limit, str) else limit
        kinds = " or ".join(TYPE_NAMES[name] for name in names)
        problem, fix = f"not {kinds}", f"give {kinds}".replace("a list", "a list, such as [1, 2]")
    elif rule == "enum":
        fix = one_of(str(value) for value in limit)
        problem = f"not an allowed value ({_shown(error.instance)[:300]})"
        return study_error(path, dotted_key(error.absolute_path), problem, fix=fix)
    elif rule in RULES:
        problem, fix = (text.format(limit=limit) for text in RULES[rule])
    else:
        problem, fix = f"breaks the rule {rule}: {limit}", "correct it"
    if isinstance(error.schema, dict) and "description" in error.schema:
        fix += f" ({' '.join(error.schema['description'].split()).rstrip('.')})"
    return study_error(path, dotted_key(error.absolute_path), f"{problem} ({_shown(error.instance)[:300]})", fix=fix)


def _shown(value: Any) -> str:
    """A value as it looks in YAML: null and true, not None and True."""
    return repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def dotted_key(parts: Iterable[str | int]) -> str:
    """A key of the study file as its reader writes it: grid.batch[0]."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".") or "the study"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _yaml_number(text: str) -> str:
    """A number as YAML 1.1 needs it, with a point and a signed exponent: 2.0e-4, not 2e-4."""
    if re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", text):
        mantissa, exponent = re.split("[eE]", text)
        if exponent[0] not in "+-":
            exponent = f"+{exponent}"
        return f"{mantissa}.0e{exponent}"
    return text.strip()
