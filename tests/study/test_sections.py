"""The typed sections of a study have exactly the keys of the schema, and nobody can change them."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from loragrid.study import sections
from loragrid.study.schema import read_schema
from loragrid.study.sections import Section
from loragrid.study.study_file import Study, load_study

SCHEMA = read_schema()["properties"]
# Place in the schema → the class of that section.
SECTIONS: dict[str, type[Section]] = {
    "data": sections.DataSettings,
    "data.source": sections.DataSource,
    "models.*": sections.ModelEntry,
    "base_case": sections.BaseCase,
    "grid": sections.Grid,
    "training": sections.Training,
    "training.budget": sections.Budget,
    "scoring": sections.Scoring,
    "compare": sections.Compare,
    "tune": sections.Tune,
    "tune.budget": sections.Budget,
    "tune.pruner": sections.Pruner,
    "plan": sections.Plan,
}
CLASSES = list(dict.fromkeys(SECTIONS.values()))


def node(place: str) -> dict[str, Any]:
    """The schema at a dotted place; `*` is the schema of a map's free keys."""
    first, *rest = place.split(".")
    found = SCHEMA[first]
    for part in rest:
        found = found["additionalProperties"] if part == "*" else found["properties"][part]
    return found


def forms(kind: type[Section]) -> list[dict[str, Any]]:
    """The forms of a section at all its places, the alternatives of a `oneOf` included."""
    # A trial's budget, for one, has no epochs.
    nodes = [node(place) for place, other in SECTIONS.items() if other is kind]
    return [form for found in nodes for form in found.get("oneOf", [found])]


@pytest.mark.parametrize("kind", CLASSES)
def test_a_section_has_the_schema_s_keys(kind: type[Section]) -> None:
    keys = {key for form in forms(kind) for key in form["properties"]}
    assert {field.name for field in dataclasses.fields(kind)} == keys


@pytest.mark.parametrize("kind", CLASSES)
def test_only_keys_that_a_valid_file_may_lack_have_a_default(kind: type[Section]) -> None:
    always = set.intersection(*(set(form.get("required", [])) for form in forms(kind)))
    fields = dataclasses.fields(kind)
    assert {field.name for field in fields if field.default is dataclasses.MISSING} == always
    assert all(field.default in (dataclasses.MISSING, None) for field in fields)


@pytest.mark.parametrize("place", SECTIONS)
def test_nested_sections_are_read_as_sections(place: str) -> None:
    below = {other.rpartition(".")[2]: kind for other, kind in SECTIONS.items() if other.rpartition(".")[0] == place}
    assert dict(SECTIONS[place].nested()) == below


def test_every_section_of_the_schema_has_a_class_and_every_class_a_section() -> None:
    assert {place.partition(".")[0] for place in SECTIONS} | {"title"} == set(SCHEMA)
    classes = {kind for kind in vars(sections).values() if isinstance(kind, type) and issubclass(kind, Section)}
    assert classes - {Section} == set(CLASSES)


@pytest.mark.parametrize("name", ["demo", "t4", "t4_short"])
def test_a_study_reads_every_section_as_its_class(name: str) -> None:
    study = load_study(name)
    for place, kind in SECTIONS.items():
        for section in values(study, place):
            assert section is None or type(section) is kind
    assert all(hasattr(study, key) for key in SCHEMA)


def values(study: Study, place: str) -> Iterator[Any]:
    """The values of a study at a place of `SECTIONS`."""
    first, _, rest = place.partition(".")
    section = getattr(study, first)
    if rest == "*":
        yield from section.values()
    elif rest:
        yield None if section is None else getattr(section, rest)
    else:
        yield section


@pytest.mark.parametrize("kind", CLASSES)
def test_a_section_is_frozen(kind: type[Section]) -> None:
    section = object.__new__(kind)
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(section, field.name, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        section.new_key = 1


def test_a_study_is_frozen_and_its_lists_are_tuples() -> None:
    study = load_study("t4")
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.training.warmup_steps = 1
    assert study.grid.batch == ((2, 4), (4, 8)) and study.base_case.batch == (2, 4)
    assert isinstance(study.scoring.target, tuple) and isinstance(study.grid.learning_rate, tuple)
