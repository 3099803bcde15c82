"""A made-up setting is an axis once the schema and the typed settings have it; nothing else is touched."""

import copy
import dataclasses
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.study import completion, grid, schema, study_file
from loragrid.study.checks import schema_validation, usual_keys
from loragrid.study.settings import Settings
from loragrid.study.study_file import Study, load_study
from tests.fixtures.studies import changed, toy_study

ENTRY = {"description": "Noise on the embeddings; 0 adds none.", "type": "number", "minimum": 0, "default": 0.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithNoise(Settings):
    noise: float


@pytest.fixture
def with_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema's one new entry, and the one new typed field."""
    new = copy.deepcopy(schema.read_schema())
    new["properties"]["base_case"]["properties"]["noise"] = ENTRY
    schema._derive(new)
    for module in (schema, completion, schema_validation, usual_keys, study_file):
        monkeypatch.setattr(module, "read_schema", lambda: new)
    monkeypatch.setattr(grid, "Settings", WithNoise)


@pytest.fixture
def study(with_noise: None, toy_llama: Path) -> Study:
    return toy_study({"toy": toy_llama}, grid={"axes": {"noise": [0.0, 5.0], "rank": [16, 4]}})


def test_its_values_are_cells_with_names_and_identities(study: Study) -> None:
    base, rank, noisy = study.cells  # axes take turns in the schema's order
    assert (base.settings.noise, noisy.settings.noise) == (0.0, 5.0)
    assert noisy.departs == {"noise": 5.0} and noisy.run.startswith("toy_noise5_")
    assert noisy.identity["noise"] == 5 and noisy.identity != base.identity
    assert rank.departs == {"rank": 4}


def test_it_may_be_tied_named_searched_and_combined(study: Study) -> None:
    arms = changed(study, grid__tied=[{"noise": 1.0, "rank": 8}], grid__cells={"loud": {"noise": 9.0}})
    assert [cell.settings.noise for cell in arms.cells] == [0.0, 0.0, 5.0, 1.0, 9.0]
    assert len(changed(study, grid__design="factorial").cells) == 4
    space = schema.read_schema()["properties"]["tune"]["properties"]["spaces"]["additionalProperties"]["properties"]
    assert [sorted(form["properties"]) for form in space["noise"]["oneOf"]] == [["high", "log", "low"], ["choices"]]


def test_it_has_a_default_and_its_mistakes_are_errors(with_noise: None, toy_llama: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = f"title: A toy\ndata: {{rows: {{source: {{generator: running_plans, rows: 90, seed: 1}}}}}}\nmodels: {{toy: {{path: {toy_llama}}}}}\n"
    file.write_text(text)
    assert load_study(str(file)).cells[0].settings.noise == 0.0
    file.write_text(text + "grid: {axes: {noise: [-1]}}\n")
    with pytest.raises(UserError, match=r"mine\.yaml: grid\.axes\.noise\[0\]: below the minimum of 0 \(-1\)"):
        load_study(str(file))
