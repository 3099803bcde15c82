"""Checks of a study file. Each broken rule is one line: `FILE: KEY: what is wrong (value). Fix: what to do.`

This module only refuses studies and changes none, so `loragrid.runtime.code_digest` leaves it out of the code of the stages.
"""

import difflib
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT

SCHEMA = ROOT / "workflow" / "schemas" / "study.schema.yaml"
# Parameters of a search space that 0 is a sensible value of; a learning rate, rank or batch of 0 trains nothing.
MAY_BE_ZERO = ("warmup_steps", "weight_decay")

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
    "pattern": ("does not match the pattern {limit}", "follow the pattern"),
    "oneOf": ("not an allowed value", "give an allowed value"),
}


def check_study(settings: dict[str, Any], path: Path) -> None:
    """Raise a one-line `UserError` if settings read from a study file break the schema or contradict each other."""
    _check_schema(settings, path)
    _check_finite(settings, path, [])
    _check_models_and_grid(settings, path)
    _check_scoring(settings["scoring"], path)
    _check_heldout_rows(settings["data"], path)
    if settings["tune"] is not None:
        _check_tune(settings["tune"], path)


def read_schema() -> dict[str, Any]:
    """The closed JSON schema of a study file."""
    # The C parser, where PyYAML has it, saves a noticeable part of every call of snakemake.
    return yaml.load(SCHEMA.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def study_error(path: Path, key: str | None, problem: str, *, fix: str) -> UserError:
    """The error about a key of a study file, or about the whole file if `key` is None."""
    place = path.name if key is None else f"{path.name}: {key}"
    return UserError(f"{place}: {problem}. Fix: {fix}.")


def one_of(names: Iterable[str]) -> str:
    """The fix for an unknown name: the names to choose from."""
    return f"use one of {', '.join(names)}"


def _check_schema(settings: dict[str, Any], path: Path) -> None:
    # JSON Schema counts 16.0 as an integer; a rank or a batch size written like that is more likely a slip.
    strict_integers = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    kind = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=strict_integers)
    errors = list(kind(read_schema()).iter_errors(settings))
    if errors:
        first = min(errors, key=lambda error: [str(part) for part in error.absolute_path])
        raise _schema_error(_most_relevant(first), path)


def _most_relevant(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """For `oneOf`, the error of the alternative that the user most likely meant, which is the one with the fewest errors.

    An alternative that takes no value of this type was not meant; if that holds for all, the error about `oneOf` itself.
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
    key = _dotted(error.absolute_path)
    if rule == "additionalProperties":
        return _unknown_key(error, path)
    if rule == "required":
        missing = next(name for name in limit if name not in value)
        key = _dotted([*error.absolute_path, missing])
        return study_error(path, key, "missing", fix="add it as described in config/README.md")
    if rule in ("type", "oneOf") and isinstance(value, str) and _is_number(value):
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
    fix = f"write {close[0]}" if close else one_of(known)
    return study_error(path, _dotted([*error.absolute_path, unknown]), "unknown key", fix=fix)


def _value_error(error: jsonschema.ValidationError, path: Path) -> UserError:
    """The error about a value of a wrong type or outside its bounds, with the key's description."""
    rule, limit = error.validator, error.validator_value
    if rule == "type":
        kinds = " or ".join(TYPE_NAMES[kind] for kind in ([limit] if isinstance(limit, str) else limit))
        problem, fix = f"not {kinds}", f"give {kinds}".replace("a list", "a list, such as [1, 2]")
    elif rule == "enum":
        problem, fix = "not an allowed value", one_of(str(value) for value in limit)
    elif rule in RULES:
        problem, fix = (text.format(limit=limit) for text in RULES[rule])
    else:
        problem, fix = f"breaks the rule {rule}: {limit}", "correct it"
    if isinstance(error.schema, dict) and "description" in error.schema:
        fix += f" ({' '.join(error.schema['description'].split()).rstrip('.')})"
    return study_error(path, _dotted(error.absolute_path), f"{problem} ({_shown(error.instance)[:300]})", fix=fix)


def _shown(value: Any) -> str:
    """A value as it looks in YAML: null and true, not None and True."""
    return repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _dotted(parts: Iterable[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".") or "the study"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _yaml_number(text: str) -> str:
    """A number as YAML 1.1 reads it, which needs a point and a signed exponent: 2e-4 is text, 2.0e-4 a number."""
    if re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", text):
        mantissa, exponent = re.split("[eE]", text)
        sign = "" if exponent[0] in "+-" else "+"
        return f"{mantissa}.0e{sign}{exponent}"
    return text.strip()


def _check_finite(value: Any, path: Path, key: list[str | int]) -> None:
    """YAML reads `.nan` and `.inf` as numbers, and a NaN passes every bound of the schema."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_finite(item, path, [*key, name])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_finite(item, path, [*key, index])
    elif isinstance(value, float) and not math.isfinite(value):
        raise study_error(path, _dotted(key), f"not a finite number ({value})", fix="give a finite number")


def _check_models_and_grid(settings: dict[str, Any], path: Path) -> None:
    models, base, grid = settings["models"], settings["base_case"], settings["grid"]
    for key, names in (("base_case.model", [base["model"]]), ("grid.model", grid["model"])):
        for name in names:
            if name not in models:
                raise study_error(path, key, f"not a key of models ({name!r})", fix=one_of(models))
    if grid["design"] == "factorial":
        for axis, value in base.items():
            if value not in grid[axis]:
                problem = f"a factorial grid without the base case's value ({value})"
                raise study_error(path, f"grid.{axis}", problem, fix="add that value")


def _check_scoring(scoring: dict[str, Any], path: Path) -> None:
    twice = set(scoring["target"]) & set(scoring["retention"])
    if twice:
        problem = f"task in both target and retention ({min(twice)!r})"
        raise study_error(path, "scoring", problem, fix="keep it in one of the two lists")
    if isinstance(scoring["limit"], dict):
        for task in scoring["limit"]:
            if task not in ("others", *scoring["target"], *scoring["retention"]):
                problem = f"limit of a task in neither target nor retention ({task!r})"
                raise study_error(path, "scoring.limit", problem, fix="add the task to a list, or remove its limit")


def _check_heldout_rows(data: dict[str, Any], path: Path) -> None:
    heldout, most = data["heldout_rows"], data["max_rows"]
    if most is not None and heldout > most / 2:
        problem = f"more than half of max_rows ({heldout} of {most})"
        raise study_error(path, "data.heldout_rows", problem, fix=f"lower it to {most // 2} or less")


def _check_tune(tune: dict[str, Any], path: Path) -> None:
    if tune["space"] not in tune["spaces"]:
        problem = f"not a key of tune.spaces ({tune['space']!r})"
        raise study_error(path, "tune.space", problem, fix=one_of(tune["spaces"]))
    for name, space in tune["spaces"].items():
        for parameter, values in space.items():
            key = f"tune.spaces.{name}.{parameter}"
            _check_parameter(path, key, values, may_be_zero=parameter in MAY_BE_ZERO)
    pruner, evaluations = tune["pruner"], tune["evaluations"]
    if pruner is not None and pruner["min_evaluations"] > evaluations:
        problem = f"more than the {evaluations} evaluations of a trial ({pruner['min_evaluations']})"
        raise study_error(path, "tune.pruner.min_evaluations", problem, fix=f"lower it to {evaluations} or less")


def _check_parameter(path: Path, key: str, values: dict[str, Any], *, may_be_zero: bool) -> None:
    lowest = min(values.get("choices") or [values["low"], values["high"]])
    if lowest <= 0 and not may_be_zero:
        raise study_error(path, key, f"not above 0 ({lowest})", fix="give values above 0")
    if "choices" in values:
        return
    low, high = values["low"], values["high"]
    if low > high:
        raise study_error(path, key, f"low is above high ({low} > {high})", fix="swap them")
    if values["log"] and low <= 0:
        raise study_error(path, key, f"a log range that starts at 0 (low: {low})", fix="raise low, or set log to false")
