"""The complete form of a study file: every key that may be left out, at its default.

The defaults are in the schema, beside their reasons. A few depend on other keys of the file and
are filled in here.
"""

import copy
from collections.abc import Iterator
from typing import Any

from loragrid.study.methods import ADAPTER_SETTINGS, METHODS
from loragrid.study.schema import read_schema, resolve


def complete(settings: dict[str, Any]) -> dict[str, Any]:
    """A copy of schema-valid `settings` with every default, its keys in the schema's order."""
    full = _fill(settings, read_schema())
    base, grid = full["base_case"], full["grid"]
    base.setdefault("model", next(iter(full["models"])))
    base.setdefault("data", next(iter(full["data"])))
    seeds = grid["axes"].get("seed")
    base.setdefault("seed", seeds[0] if seeds else 3407)
    absent = ADAPTER_SETTINGS - settings_of_methods(full)
    full["base_case"] = {key: base[key] for key in setting_names() if key not in absent}
    full["heldout"].setdefault("set", base["data"])
    if full["tune"] is not None:
        full["tune"].setdefault("space", next(iter(full["tune"]["spaces"])))
    return full


def settings_of_methods(settings: dict[str, Any]) -> frozenset[str]:
    """The settings of `ADAPTER_SETTINGS` that any method in a study file has."""
    base, grid = settings.get("base_case", {}), settings.get("grid", {})
    arms = [*grid.get("tied", []), *grid.get("cells", {}).values()]
    names = {base.get("method", "lora"), *grid.get("axes", {}).get("method", [])}
    names |= {arm["method"] for arm in arms if "method" in arm}
    return frozenset().union(*(METHODS[name].settings for name in names))


def setting_names() -> tuple[str, ...]:
    """The settings that determine a run and may be axes, in the schema's order."""
    return tuple(read_schema()["properties"]["base_case"]["properties"])


def defaults_used(settings: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """(dotted key, value, description) of every key that a study file leaves to its default."""
    full, schema = complete(settings), read_schema()
    for section, value in full.items():
        node = schema["properties"][section]
        # Maps of named entries have no defaults of their own that a reader of the plan needs.
        if "properties" not in node or not isinstance(value, dict):
            continue
        given = settings.get(section) or {}
        for key in value:
            if key not in given:
                entry = resolve(node["properties"][key])
                yield f"{section}.{key}", value[key], " ".join(entry["description"].split())


def _fill(value: Any, node: dict[str, Any]) -> Any:
    """`value` with the defaults of its schema `node`, at any depth."""
    node = resolve(node)
    if not isinstance(value, dict):
        return copy.deepcopy(value)
    properties, others = _properties(value, node)
    filled = {}
    for key, entry in properties.items():
        if key in value:
            filled[key] = _fill(value[key], entry)
        elif "default" in resolve(entry):
            filled[key] = _fill(copy.deepcopy(resolve(entry)["default"]), entry)
    # Keys that the schema does not name keep the file's order.
    return {key: filled[key] for key in properties if key in filled} | {
        key: _fill(value[key], others) for key in value if key not in properties
    }


def _properties(value: dict[str, Any], node: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The named keys of a map and the schema of its free ones, in the alternative that it takes."""
    for form in node.get("oneOf", [node]):
        form = resolve(form)
        required = set(form.get("required", []))
        kinds = form.get("type", "object")
        if required <= value.keys() and "object" in (kinds, *kinds):
            free = form.get("additionalProperties")
            return form.get("properties", {}), free if isinstance(free, dict) else {}
    return {}, {}
