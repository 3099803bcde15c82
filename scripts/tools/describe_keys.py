"""Writes config/README.md, the list of the keys of a study file, from the schema.

Usage: python scripts/tools/describe_keys.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loragrid.errors import run_main
from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import write_text
from loragrid.study.schema import read_schema

HEAD = """# Study files

`config.yaml` names the study that `snakemake` runs: a file in `studies/`, or any path. A study file is complete:
nothing is merged into it, every key must be written, and an unknown key is an error. To start your own, copy
`studies/demo.yaml`.

Relative paths are looked up beside the study file first, then in the project. A number with an exponent needs a
decimal point: `2.0e-4`, because YAML reads `2e-4` as text.

A run is named after everything that determines its adapter: one cell of the grid, `data`, its entry of `models`, and
`training`. A changed setting therefore makes a new run, and an added value trains only the new cells. The following
keys are not part of a run's identity and may be changed at any time without training again:

- `save_steps`, `save_minutes`, `keep_checkpoints`, `session_minutes` and `report_to` of `training`;
- `shape` of a model, and the path of a local file (its content counts);
- `title`, `scoring`, `compare`, `tune` and `plan`. A change of `scoring` (except its `threads`) scores again, a change
  of `compare` compares again.

`python scripts/tools/describe_keys.py` writes this page from `workflow/schemas/study.schema.yaml`.

| key | values | meaning and reason |
|---|---|---|
"""
TYPE_NAMES = {"object": "map", "array": "list", "string": "text", "integer": "whole number"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def describe(schema: dict[str, Any]) -> str:
    """The whole page as Markdown."""
    rows = (f"| `{key}` | {_values(node)} | {_text(node)} |" for key, node in _keys(schema, schema, ""))
    return HEAD + "\n".join(rows) + "\n"


def _keys(node: dict[str, Any], schema: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key below `node` with its resolved schema; `*` is any key of a map with free keys."""
    seen = set()
    for branch in (node, *node.get("oneOf", [])):
        children = branch.get("properties", {})
        if isinstance(branch.get("additionalProperties"), dict):
            children = children | {"*": branch["additionalProperties"]}
        for name, child in children.items():
            key = f"{prefix}{name}"
            # The alternatives of a `oneOf` share keys, such as a model's precision.
            if key in seen:
                continue
            seen.add(key)
            resolved = _resolve(child, schema)
            yield key, resolved
            yield from _keys(resolved, schema, f"{key}.")


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
    limits = [f"{sign} {node[name]}" for name, sign in BOUNDS.items() if name in node]
    return ", ".join([" or ".join(TYPE_NAMES.get(kind, kind) for kind in kinds), *limits])


def _text(node: dict[str, Any]) -> str:
    # A bar would end the table's cell.
    return " ".join(node.get("description", "").split()).replace("|", "\\|")


def main() -> None:
    """Write the page."""
    write_text(Path(ROOT / "config" / "README.md"), describe(read_schema()))


if __name__ == "__main__":
    run_main(main)
