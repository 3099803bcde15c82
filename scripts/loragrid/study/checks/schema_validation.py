"""Errors against the schema of a study file, each in one line.

It only refuses, so `loragrid.runtime.code_digest` leaves it out of the code of the stages.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

from loragrid.errors import UserError
from loragrid.study.checks.mistakes import Mistake
from loragrid.study.checks.usual_keys import key_fix, value_fix
from loragrid.study.schema import dotted_key, forms_of, nearest, read_schema, study_error, types_of

TYPE_NAMES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a map of keys to values",
    "null": "null",
}
# Whole numbers that every library and file format here can hold.
LARGEST_WHOLE = 2**53
LEADING_ZERO = r"[+-]?0[0-9]{1,20}"
LONGEST_VALUE = 80  # characters of the value of an unknown key, which is often a whole section
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
    "enum": ("not an allowed value", "give an allowed value"),
}


def schema_mistakes(settings: dict[str, Any], path: Path) -> list[Mistake]:
    """Everything in a study file that breaks the schema, in the order of the file."""
    # JSON Schema counts 16.0 as an integer; a rank or a batch size written like that is more likely
    # a slip.
    strict_integers = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    kind = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=strict_integers)
    found: dict[tuple, Mistake] = {}
    for error in kind(read_schema()).iter_errors(settings):
        for meant in _meant(error):
            for mistake in _mistakes(meant, path):
                # jsonschema reports each missing key of a map, and names all of them each time. Of a value one mistake
                # is enough: 0.5 rows are no whole number, and below 1.
                kind_of_place = mistake.kind if mistake.kind in ("unknown", "missing") else "value"
                found.setdefault((mistake.place, kind_of_place), mistake)
    mistakes = _without_renamed(list(found.values()))
    return sorted(mistakes, key=lambda mistake: _position(mistake.place, settings))


def _meant(error: jsonschema.ValidationError) -> Iterator[jsonschema.ValidationError]:
    """For `oneOf`, the errors of the alternative that the user most likely meant.

    That is the one with the fewest errors. An alternative that takes no value of this type was not
    meant; if that holds for all, the error about `oneOf` itself.
    """
    alternatives: dict[int, list[jsonschema.ValidationError]] = {}
    for child in error.context or ():
        alternatives.setdefault(child.relative_schema_path[0], []).append(child)
    meant = [found for found in alternatives.values() if not _rejects_type(found[0], error)]
    if not meant:
        yield error
        return
    for child in min(meant, key=lambda found: (len(found), -len(found[0].absolute_path))):
        yield from _meant(child)


def _mistakes(error: jsonschema.ValidationError, path: Path) -> Iterator[Mistake]:
    place = tuple(error.absolute_path)
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        for name in error.instance:
            if name not in known:
                yield Mistake((*place, name), "unknown", _unknown_key(name, error.instance[name], place, known, path))
    elif error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                key, fix = dotted_key([*place, name]), "add it as described in config/README.md"
                yield Mistake((*place, name), "missing", study_error(path, key, "missing", fix=fix))
    else:
        yield Mistake(place, str(error.validator), _schema_error(error, path))


def _without_renamed(mistakes: list[Mistake]) -> list[Mistake]:
    """The mistakes without the missing keys that are there under a wrong name, whose fix names them."""
    renamed = set()
    for mistake in mistakes:
        if mistake.kind == "unknown":
            right = str(mistake.error).rpartition(". Fix: write ")[2].rstrip(".")
            renamed.add((*mistake.place[:-1], right))
    return [mistake for mistake in mistakes if mistake.kind != "missing" or mistake.place not in renamed]


def _position(place: tuple[str | int, ...], settings: Any) -> list[int]:
    """Where in the file a place is, for sorting; a missing key comes after the others of its map."""
    position, value = [], settings
    for part in place:
        names = list(value) if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
        found = part in names
        position.append(list(names).index(part) if found else len(names))
        value = value[part] if found else None
    return position


def _rejects_type(child: jsonschema.ValidationError, error: jsonschema.ValidationError) -> bool:
    return child.validator in ("type", "const") and child.absolute_path == error.absolute_path


def too_large(path: Path, key: str, value: float, *, largest: int = LARGEST_WHOLE) -> UserError:
    """A number that libraries or file formats here cannot hold."""
    if value < 0:
        return study_error(path, key, f"too small a number ({value:g})", fix=f"give {-LARGEST_WHOLE} or more")
    return study_error(path, key, f"too large a number ({value:g})", fix=f"give {largest} or less")


def _schema_error(error: jsonschema.ValidationError, path: Path) -> UserError:
    rule, value, limit = error.validator, error.instance, error.validator_value
    key = dotted_key(error.absolute_path)
    if _takes_number(error) and isinstance(value, str) and re.fullmatch(LEADING_ZERO, value.strip()):
        # YAML 1.1 reads it in base 8, 1.2 in base 10, and neither may be meant.
        problem = f"a number that begins with 0 ({value})"
        return study_error(path, key, problem, fix=f"write {int(value)}")
    if rule in ("type", "oneOf", "pattern") and _takes_number(error) and _is_number(value):
        number = _yaml_number(value)
        return study_error(path, key, f"text instead of a number ({value!r})", fix=f"write {number} without quotes")
    if rule == "type" and "integer" in [limit, *limit] and isinstance(value, float) and value.is_integer():
        if abs(value) > LARGEST_WHOLE:
            return too_large(path, key, value, largest=error.schema.get("maximum", LARGEST_WHOLE))
        return study_error(path, key, f"has a decimal point ({value!r})", fix=f"write the whole number {value:.0f}")
    fix = value_fix(value, error.schema, place=list(error.absolute_path))
    if fix is not None:
        return study_error(path, key, f"{_problem(error)} ({_shown(value)[:300]})", fix=fix)
    if rule in ("minItems", "minProperties") and not value:
        return study_error(path, key, "empty", fix="give at least one value")
    if rule == "uniqueItems":
        twice = next(item for item in value if value.count(item) > 1)
        return study_error(path, key, f"has a value twice ({twice!r})", fix="keep it once")
    return _value_error(error, path)


def _unknown_key(name: str, value: Any, place: tuple[str | int, ...], known: list[str], path: Path) -> UserError:
    fix = key_fix(str(name), value, place=[str(part) for part in place], known=known)
    problem = f"unknown key ({_shown(value)[:LONGEST_VALUE]})"
    return study_error(path, dotted_key([*place, name]), problem, fix=fix)


def _value_error(error: jsonschema.ValidationError, path: Path) -> UserError:
    """The error about a value of a wrong type or outside its bounds, with the key's description."""
    rule, limit = error.validator, error.validator_value
    if rule == "enum":
        fix = nearest(error.instance, [str(value) for value in limit])
    elif rule == "type":
        fix = f"give {_kinds(limit)}".replace("a list", "a list, such as [1, 2]")
    else:
        fix = RULES.get(rule, ("", "correct it"))[1].format(limit=limit)
    if rule != "enum" and isinstance(error.schema, dict) and "description" in error.schema:
        fix += f" ({' '.join(error.schema['description'].split()).rstrip('.')})"
    problem = f"{_problem(error)} ({_shown(error.instance)[:300]})"
    return study_error(path, dotted_key(error.absolute_path), problem, fix=fix)


def _problem(error: jsonschema.ValidationError) -> str:
    rule, limit = error.validator, error.validator_value
    if rule == "type":
        return f"not {_kinds(limit)}"
    if rule in RULES:
        return RULES[rule][0].format(limit=limit)
    return f"breaks the rule {rule}: {limit}"


def _kinds(types: str | list[str]) -> str:
    return " or ".join(TYPE_NAMES[name] for name in ([types] if isinstance(types, str) else types))


def _shown(value: Any) -> str:
    """A value as it looks in YAML: null and true, not None and True."""
    return repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _takes_number(error: jsonschema.ValidationError) -> bool:
    """Whether a number may be where the error is, directly or as an expression of the rank."""
    forms = forms_of(error.schema)
    expression = read_schema()["$defs"]["expression"]
    return bool(types_of(forms) & {"integer", "number"}) or expression in forms


def _is_number(text: Any) -> bool:
    try:
        return isinstance(text, str) and math.isfinite(float(text))
    except ValueError:
        return False


def _yaml_number(text: str) -> str:
    """A number as YAML 1.1 needs it, with a point and a signed exponent: 2.0e-4, not 2e-4."""
    if re.fullmatch(r"[+-]?[0-9]+[eE][+-]?[0-9]+", text):
        mantissa, exponent = re.split("[eE]", text)
        if exponent[0] not in "+-":
            exponent = f"+{exponent}"
        return f"{mantissa}.0e{exponent}"
    plain = text.strip()
    # Of what Python reads as a number and YAML does not, such as +.5 and digits of other scripts, the usual form.
    if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", plain):
        return plain
    value = float(plain)
    return f"{value:.0f}" if value.is_integer() else str(value)
