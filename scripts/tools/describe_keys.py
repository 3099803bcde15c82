"""Writes config/README.md, the list of the keys of a study file, from the schema.

Usage: python scripts/tools/describe_keys.py
"""

if __name__ == "__main__":
    import check_environment  # noqa: F401  ends the process if packages are missing

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loragrid.errors import run_main
from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import write_text
from loragrid.study.schema import read_schema

HEAD = """# Study files

`config.yaml` names the study that `snakemake` runs: a file in `studies/`, or any path. Three keys are required:
`title`, `data` and `models`. Every other key has a default, and an unknown key is an error.
`snakemake --cores 1 plan` lists the defaults that a study uses, each with its reason, and `results/{study}/study.yaml`
is the complete file as it was run. `docs/own-study.md` shows how to write one.

Relative paths are looked up beside the study file first, then in the project.

**Any setting is an axis.** Each key of `base_case` may be listed under `grid.axes` with the values to try, and may be
set in an entry of `grid.tied` or `grid.cells`. A space of `tune.spaces` takes those that trials do not have to share;
`docs/search-and-app.md` lists the others.

A run is named after everything that determines its result: its settings (the keys of `base_case`), its model and its
data set. A changed setting therefore makes a new run, and an added value trains only the new cells. The following keys
are not part of a run's identity and may be changed at any time without training again:

- the section `training`, and `title`, `scoring`, `compare`, `tune`, `adopt` and `plan`. A change of `scoring` (except
  its `threads`) scores again, a change of `compare` compares again; a new share in `scoring.at` below 1 needs the
  weights of that moment, which only a new training keeps;
- the keys of data sets and models, `shape` of a model, and the path of a local file (its content counts).

`python scripts/tools/convert_study.py FILE` turns a study file of the earlier form, with settings under `training`,
into this one. `python scripts/tools/describe_keys.py` writes this page from `workflow/schemas/study.schema.yaml`.

| key | values | default | meaning and reason |
|---|---|---|---|
"""
# Maps whose keys are the settings of `base_case` again: they are described once.
OF_SETTINGS = ("grid.axes", "grid.tied", "grid.cells.*", "tune.spaces.*")
# Defaults that depend on other keys of the file (loragrid.study.completion).
COMPUTED = {
    "heldout.set": "`base_case.data`",
    "base_case.model": "the first of `models`",
    "base_case.data": "the first of `data`",
    "base_case.seed": "the first of `grid.axes.seed`, else `3407`",
    "tune.space": "the first of `tune.spaces`",
}
TYPE_NAMES = {"object": "map", "array": "list", "string": "text", "integer": "whole number"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def describe(schema: dict[str, Any]) -> str:
    """The whole page as Markdown."""
    rows = (
        f"| `{key}` | {_values(node)} | {_default(key, node)} | {_text(node)} |"
        for key, node in _keys(schema, schema, "")
    )
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
            if key not in OF_SETTINGS:
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
        return " or ".join(_values(_resolve(branch, read_schema())) for branch in node.get("oneOf", []))
    kinds = [node["type"]] if isinstance(node["type"], str) else node["type"]
    limits = [f"{sign} {node[name]}" for name, sign in BOUNDS.items() if name in node]
    return ", ".join([" or ".join(TYPE_NAMES.get(kind, kind) for kind in kinds), *limits])


def _default(key: str, node: dict[str, Any]) -> str:
    """The default, or what it follows; nothing for a required key and for a map of optional keys."""
    if key in COMPUTED:
        return COMPUTED[key]
    if "default" not in node or (node["default"] == {} and "properties" in node):
        return ""
    value = node["default"]
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False).replace('"', "")
    return f"`{value}`"


def _text(node: dict[str, Any]) -> str:
    # A bar would end the table's cell.
    return " ".join(node.get("description", "").split()).replace("|", "\\|")


def main() -> None:
    """Write the page."""
    write_text(Path(ROOT / "config" / "README.md"), describe(read_schema()))


if __name__ == "__main__":
    run_main(main)
