"""The schema of a study file, and the form of its errors.

An error is one line: `FILE: KEY: what is wrong (value). Fix: what to do.`
"""

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

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
ALIKE = 0.8  # likeness of a misspelt name; 8bit and 4bit, which are not the same, have 0.75
SCHEMA = ROOT / "workflow" / "schemas" / "study.schema.yaml"


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


def resolve(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema node, or the definition that it refers to."""
    reference = node.get("$ref")
    return node if reference is None else read_schema()["$defs"][reference.removeprefix("#/$defs/")]


def forms_of(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives of a schema node, references resolved."""
    node = resolve(node)
    if "oneOf" not in node:
        return [node]
    return [form for part in node["oneOf"] for form in forms_of(part)]


def types_of(forms: Iterable[Mapping[str, Any]]) -> set[str]:
    """The types of value that any of some schema nodes names."""
    found: set[str] = set()
    for form in forms:
        kinds = form.get("type", [])
        found |= {kinds} if isinstance(kinds, str) else set(kinds)
    return found


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


def nearest(name: Any, names: Iterable[str]) -> str:
    """The fix for an unknown name: the name that is most like it, and all names to choose from."""
    known = list(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=ALIKE) if isinstance(name, str) else []
    if not close or len(known) == 1:
        return one_of(known)
    return f"write {close[0]}, or {one_of(known)}"


def dotted_key(parts: Iterable[str | int]) -> str:
    """A key of the study file as its reader writes it: grid.batch[0]."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".") or "the study"
