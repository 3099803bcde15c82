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
    """(dotted key, value, description) of every key that a study file leaves to its default.

    What all entries of a map such as `models` leave out comes once, as `models.*.chat_template`.
    """
    for section, value in complete(settings).items():
        entry = read_schema()["properties"][section]
        if isinstance(value, dict) and "properties" in entry:
            # A section that is left out is a list of defaults.
            yield from _defaults(value, settings.get(section) or {}, entry, f"{section}.")
        elif section in settings:
            yield from _nested_defaults(value, settings[section], entry, section)
        else:
            yield _default(section, value, entry)


def _defaults(full: dict[str, Any], given: Any, node: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any, str]]:
    """The defaults in the complete map `full`, of which the file says `given`."""
    properties, others = _properties(full, resolve(node))
    for key in properties:
        if key in full and key not in given:
            yield _default(f"{prefix}{key}", full[key], properties[key])
        elif key in full:
            yield from _nested_defaults(full[key], given[key], properties[key], f"{prefix}{key}")
    entries = [key for key in full if key not in properties]
    lists = [list(_nested_defaults(full[key], given[key], others, "")) for key in entries]
    for key, found in zip(entries, lists, strict=True):
        for name, value, description in found:
            if all((name, value, description) in other for other in lists) and len(lists) > 1:
                if key == entries[0]:
                    yield f"{prefix}*{name}", value, description
            else:
                yield f"{prefix}{key}{name}", value, description


def _nested_defaults(full: Any, given: Any, node: dict[str, Any], place: str) -> Iterator[tuple[str, Any, str]]:
    if isinstance(full, dict) and isinstance(given, dict):
        yield from _defaults(full, given, node, f"{place}.")


def _default(place: str, value: Any, node: dict[str, Any]) -> tuple[str, Any, str]:
    entry = resolve(node)
    # A map of settings is shown as the schema writes it, without the defaults within it.
    shown = entry.get("default", value) if isinstance(value, dict) else value
    return place, shown, " ".join(entry["description"].split())


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
