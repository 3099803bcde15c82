"""A study file's YAML: strict about keys, and with names as they are written.

YAML reads the names `8`, `1e3`, `yes` and `2026-01-01` as numbers, truth values and dates. Keys are
always text here, and so is a value where the schema takes only text: `base_case.model: 8` names the
model with the key `8`. Only null stays null, because it means that there is no value.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from loragrid.errors import one_line
from loragrid.study.schema import forms_of, study_error, types_of

MERGE, TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"
INTEGER, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
EXACT = 2**53  # a float below it is the whole number that is written
# What YAML 1.1 reads in another base than the one that is meant: 016 is 14 to it, and 1:30 is 90.
OTHER_BASE = re.compile(r"[+-]?0[0-9_]+|.*:.*")
# YAML tag → the schema's types that take such a value as it is.
TYPES = {
    INTEGER: {"integer", "number"},
    FLOAT: {"number"},
    "tag:yaml.org,2002:bool": {"boolean"},
    "tag:yaml.org,2002:timestamp": set(),
}
# A file of 10,000 arms has about 1 MB and 100,000 values. Both limits are reached within seconds.
MOST_BYTES, MOST_VALUES = 4_000_000, 200_000


def read_yaml(path: Path, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The map in a YAML file; `schema` says where names are.

    Raises `UserError` for a file that cannot be read or holds no map.
    """
    try:
        settings = _read(_text_of(path), schema)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        problem = f"cannot be read as YAML ({_yaml_problem(error)})"
        raise study_error(path, None, problem, fix="correct the file") from None
    if not isinstance(settings, dict):
        problem = "empty" if settings is None else "not a map of keys to values"
        raise study_error(path, None, problem, fix="write the keys that config/README.md lists")
    return settings


def _text_of(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"longer than {MOST_BYTES // 1_000_000} MB")
    return content.decode("utf-8")


def _read(text: str, schema: Mapping[str, Any]) -> Any:
    loader = _StrictLoader(text)
    try:
        node = loader.get_single_node()
        values = 0 if node is None else _count_values(node, {})
        if values > MOST_VALUES:
            # Each alias is a copy of what it names, so a few nested lines can make millions of values.
            raise ValueError(f"its aliases make more than {MOST_VALUES:,} values")
        return None if node is None else loader.construct_document(_Names().as_text(node, [schema]))
    finally:
        loader.dispose()


def _count_values(node: yaml.Node, counted: dict[int, int]) -> int:
    """The number of values of a node once every alias is written out; `counted` holds those of finished nodes."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counted:
        # A node within itself is refused when its value is constructed.
        counted[id(node)] = 1
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        counted[id(node)] = 1 + sum(_count_values(part, counted) for part in parts)
    return counted[id(node)]


class _StrictLoader(yaml.SafeLoader):
    """A YAML loader that refuses keys that are lists or maps, and duplicate keys.

    PyYAML would keep the last of several equal keys, and read the names `on` and `2` as a truth
    value and a number.
    """


def _strict_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict:
    # `deep=True` below checks nested maps too.
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a list or a map is used as a key", key.start_mark)
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is written twice", key.start_mark)
        seen.add(key.value)
        if key.tag != MERGE:
            key.tag = TEXT
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


# PyYAML follows YAML 1.1, where 2e-4 is text. Everybody who writes it means the number.
_StrictLoader.add_implicit_resolver(FLOAT, re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)[eE][+-]?\d+$"), list("+-.0123456789"))


def _number(loader: _StrictLoader, node: yaml.ScalarNode) -> int | float | str:
    """A number, or the text of one in another base, which the schema then refuses as text."""
    if OTHER_BASE.fullmatch(node.value):
        return node.value
    if node.tag == INTEGER:
        return loader.construct_yaml_int(node)
    return loader.construct_yaml_float(node)


_StrictLoader.add_constructor(INTEGER, _number)
_StrictLoader.add_constructor(FLOAT, _number)
_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _strict_mapping)


class _Names:
    """Makes text of the values that a schema takes only as text, in copies of the YAML nodes.

    Copies, because an anchor may name a number at one place and a model at another.
    """

    def __init__(self) -> None:
        self.made: dict[tuple, yaml.Node] = {}

    def as_text(self, node: yaml.Node, schemas: list[Mapping[str, Any]]) -> yaml.Node:
        """A copy of `node`, whose value has one of the `schemas`."""
        forms = [form for schema in schemas for form in forms_of(schema)]
        place = id(node), *(id(form) for form in forms)
        if place not in self.made:
            # A node within itself is refused when its value is constructed.
            self.made[place] = node
            self.made[place] = self._copy(node, forms)
        return self.made[place]

    def _copy(self, node: yaml.Node, forms: list[Mapping[str, Any]]) -> yaml.Node:
        if isinstance(node, yaml.ScalarNode):
            types = types_of(forms)
            tag, value = _scalar(node, types)
            return yaml.ScalarNode(tag, value, node.start_mark, node.end_mark)
        if isinstance(node, yaml.SequenceNode):
            items = [form["items"] for form in forms if "items" in form]
            return _with_value(node, [self.as_text(item, items) for item in node.value])
        pairs = []
        for key, value in node.value:
            if key.tag == MERGE:
                pairs.append((key, self._merged(value, forms)))
            else:
                pairs.append((key, self.as_text(value, list(_below(key.value, forms)))))
        return _with_value(node, pairs)

    def _merged(self, node: yaml.Node, forms: list[Mapping[str, Any]]) -> yaml.Node:
        """The map, or the list of maps, of a key `<<`."""
        if isinstance(node, yaml.SequenceNode):
            return _with_value(node, [self.as_text(part, forms) for part in node.value])
        return self.as_text(node, forms)


def _scalar(node: yaml.ScalarNode, types: set[str]) -> tuple[str, str]:
    """Tag and value of a scalar where a schema takes values of these types."""
    if "string" in types and TYPES.get(node.tag, types).isdisjoint(types):
        return TEXT, node.value
    # 1e6 training tokens are a whole number; 16.0 without an exponent is more likely a slip.
    if node.tag == FLOAT and "e" in node.value.lower() and "integer" in types and "number" not in types:
        number = float(node.value)
        if number.is_integer() and abs(number) < EXACT:
            return INTEGER, f"{number:.0f}"
    return node.tag, node.value


def _below(key: Any, forms: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The schemas of the value of a key."""
    for form in forms:
        named = form.get("properties", {})
        free = form.get("additionalProperties")
        if isinstance(key, str) and key in named:
            yield named[key]
        elif isinstance(free, Mapping):
            yield free


def _with_value(node: yaml.CollectionNode, value: list[Any]) -> yaml.CollectionNode:
    return type(node)(node.tag, value, node.start_mark, node.end_mark)


def _yaml_problem(error: Exception) -> str:
    """The parser's complaint and its place in one line; PyYAML's own message takes several."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return one_line(str(error))
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
