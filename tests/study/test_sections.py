"""The typed sections of a study have exactly the keys of the schema, and nobody can change them."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from loragrid.study import sections, settings
from loragrid.study.completion import setting_names
from loragrid.study.schema import read_schema, resolve
from loragrid.study.settings import Section
from loragrid.study.study_file import Study, load_study

SCHEMA = read_schema()["properties"]
# Place in the schema → the class of that section.
SECTIONS: dict[str, type[Section]] = {
    "data.*": sections.DataSet,
    "data.*.source": sections.DataSource,
    "data.*.filters": sections.Filters,
    "heldout": sections.Heldout,
    "models.*": sections.ModelEntry,
    "adopt.*": sections.AdoptedAdapter,
    "base_case": settings.Settings,
    "base_case.budget": settings.Budget,
    "base_case.warmup": settings.Warmup,
    "grid": sections.Grid,
    "training": sections.Training,
    "scoring": sections.Scoring,
    "compare": sections.Compare,
    "tune": sections.Tune,
    "tune.budget": settings.Budget,
    "tune.pruner": sections.Pruner,
    "plan": sections.Plan,
}
# Fields that the study file gives elsewhere.
FROM_ELSEWHERE = {sections.ModelEntry: {"precision"}}
CLASSES = list(dict.fromkeys(SECTIONS.values()))


def node(place: str) -> list[dict[str, Any]]:
    """The forms of the schema at a dotted place; `*` is the schema of a map's free keys."""
    first, *rest = place.split(".")
    found = [SCHEMA[first]]
    for part in rest:
        if part == "*":
            found = [form["additionalProperties"] for form in found]
        else:
            found = [form["properties"][part] for form in found if part in form["properties"]]
        found = [resolve(form) for form in found]
        found = [resolve(alternative) for form in found for alternative in form.get("oneOf", [form])]
    return found


def forms(kind: type[Section]) -> list[dict[str, Any]]:
    """The forms of a section at all its places, the alternatives of a `oneOf` included."""
    # A trial's budget, for one, has no epochs.
    return [form for place, other in SECTIONS.items() if other is kind for form in node(place)]


@pytest.mark.parametrize("kind", CLASSES)
def test_a_section_has_the_schema_s_keys(kind: type[Section]) -> None:
    keys = {key for form in forms(kind) for key in form["properties"]}
    assert {field.name for field in dataclasses.fields(kind)} - FROM_ELSEWHERE.get(kind, set()) == keys


@pytest.mark.parametrize("kind", CLASSES)
def test_only_keys_that_a_complete_file_may_lack_have_a_default(kind: type[Section]) -> None:
    always = set.intersection(*(certain(form) for form in forms(kind)))
    fields = dataclasses.fields(kind)
    assert {field.name for field in fields if field.default is dataclasses.MISSING} == always
    assert all(field.default in (dataclasses.MISSING, None) for field in fields)


def certain(form: dict[str, Any]) -> set[str]:
    """The keys that a complete file has in a section of this form: it must write them, or they have a default."""
    if form.get("maxProperties") == 1:
        return set()
    filled_from_other_keys = {"model", "data", "seed", "set", "space"}
    with_default = {key for key, child in form["properties"].items() if "default" in resolve(child)}
    return with_default | set(form.get("required", [])) | (filled_from_other_keys & form["properties"].keys())


def test_settings_are_typed_in_the_schema_s_order() -> None:
    assert tuple(field.name for field in dataclasses.fields(settings.Settings)) == setting_names()


@pytest.mark.parametrize("place", SECTIONS)
def test_nested_sections_are_read_as_sections(place: str) -> None:
    below = {other.rpartition(".")[2]: kind for other, kind in SECTIONS.items() if other.rpartition(".")[0] == place}
    assert dict(SECTIONS[place].nested()) == below


def test_every_section_of_the_schema_has_a_class_and_every_class_a_section() -> None:
    assert {place.partition(".")[0] for place in SECTIONS} | {"title", "left_out", "backup"} == set(SCHEMA)
    known = [*vars(sections).values(), *vars(settings).values()]
    classes = {kind for kind in known if isinstance(kind, type) and issubclass(kind, Section)}
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
    first, *rest = place.split(".")
    found = [getattr(study, first)]
    for part in rest:
        found = [item for section in found if section for item in _below(section, part)]
    yield from found


def _below(section: Any, part: str) -> list[Any]:
    return list(section.values()) if part == "*" else [getattr(section, part)]


@pytest.mark.parametrize("kind", CLASSES)
def test_a_section_is_frozen(kind: type[Section]) -> None:
    section = object.__new__(kind)
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(section, field.name, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        section.new_key = 1


def test_a_study_is_frozen_and_its_lists_are_tuples() -> None:
    study = load_study("demo")
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.base_case.rank = 1
    assert study.grid.axes["rank"] == (16, 64) and study.base_case.batch == (8, 1)
    assert isinstance(study.scoring.target, tuple) and isinstance(study.grid.axes["learning_rate"], tuple)
