"""Writes config/README.md, the list of every key of a study file, from the schema's descriptions.

Usage: python scripts/tools/describe_keys.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loragrid.errors import run_main
from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import write_text
from loragrid.study.validation import read_schema

HEAD = """# Study files

`config.yaml` names the study that `snakemake` runs: a file in `studies/`, or any path. A study file is complete: it is merged
with nothing, every key is written, and an unknown key is an error. Copy `studies/demo.yaml` and change what you want to know.

Relative paths are looked up beside the study file first, then in the project. A number with an exponent needs a point:
`2.0e-4`, since YAML reads `2e-4` as text.

A run is named after *all* that determines its adapter: a changed setting makes a new run, an added value trains only what is new.
That identity is one cell of the grid with `data`, its entry of `models` and `training`. No part of it are `save_steps`,
`save_minutes`, `keep_checkpoints`, `session_minutes` and `report_to` of `training`, the `shape` of a model, the place of a local
file, and all of `title`, `scoring`, `compare`, `tune` and `plan`: they may be changed at any time, and no run is trained again. A
change of `scoring` (but for its `threads`) scores again, one of `compare` compares again.

This page is made from `workflow/schemas/study.schema.yaml` by `python scripts/tools/describe_keys.py`.

| key | values | what and why |
|---|---|---|
"""


def describe(schema: dict[str, Any]) -> str:
    """The whole page as Markdown."""
    rows = (f"| `{key}` | {_values(node)} | {_text(node)} |" for key, node in _keys(schema, schema, ""))
    return HEAD + "\n".join(rows) + "\n"


def _keys(node: dict[str, Any], schema: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key below `node` with its resolved schema; a map's free keys appear as `*`."""
    seen = set()
    for branch in (node, *node.get("oneOf", [])):
        children = branch.get("properties", {})
        if isinstance(branch.get("additionalProperties"), dict):
            children = children | {"*": branch["additionalProperties"]}
        for name, child in children.items():
            child = _resolve(child, schema)
            key = f"{prefix}{name}"
            if key in seen:
                continue
            seen.add(key)
            yield key, child
            yield from _keys(child, schema, f"{key}.")


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    return schema["$defs"][node["$ref"].rsplit("/", 1)[1]]


def _values(node: dict[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    if "type" not in node:
        return " or ".join(_values(branch) for branch in node.get("oneOf", []))
    kinds = [node["type"]] if isinstance(node["type"], str) else node["type"]
    names = {"object": "map", "array": "list", "string": "text", "number": "number", "integer": "whole number"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {node[name]}" for name, sign in bounds.items() if name in node]
    return " or ".join(names.get(kind, kind) for kind in kinds) + (f", {', '.join(limits)}" if limits else "")


def _text(node: dict[str, Any]) -> str:
    return " ".join(node.get("description", "").split()).replace("|", "\\|")


def main() -> None:
    """Write the page."""
    write_text(Path(ROOT / "config" / "README.md"), describe(read_schema()))


if __name__ == "__main__":
    run_main(main)
