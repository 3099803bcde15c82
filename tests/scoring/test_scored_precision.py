"""`scoring.precision`: a base in 32 bits, scored in bfloat16, under an identity of its own."""

from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import yaml

import score
from loragrid.errors import UserError
from loragrid.records.outcomes import collect
from loragrid.records.record import ScoreRecord, read_record
from loragrid.scoring.loaded_model import LoadedModel
from loragrid.scoring.subjects import identify
from loragrid.study.study_file import Study, load_study
from loragrid.study.tasks import scoring_digest
from tests.fixtures.score_toys import as_base, as_run
from tests.fixtures.studies import changed


@pytest.fixture(scope="module")
def scored(study: Study, data: Path, runs: list, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list]:
    """The study with scores in 16 bits, and the base and a run scored so."""
    half = changed(study, scoring__precision="16bit")
    out = tmp_path_factory.mktemp("half") / "score"
    subjects = [as_base(study, data, out), as_run(runs[0], data, out)]
    subjects = [replace(subject, out=out / subject.name) for subject in subjects]
    score.score_subjects(study=half, subjects=subjects)
    return half, subjects


def test_a_base_and_its_adapter_are_scored_in_bfloat16(scored: tuple[Study, list], scored_alone: list) -> None:
    import torch

    half, subjects = scored
    for ours, theirs in zip(subjects, scored_alone):
        record = read_record(ours.out / "score.json", ScoreRecord)
        assert record.precision == "16bit" and record.status == "scored"
        values = [
            pandas.read_parquet(one.out / "items.parquet").query("task == 'heldout_loss'").value
            for one in (ours, theirs)
        ]
        difference = (values[0].to_numpy() - values[1].to_numpy()) / values[1].to_numpy()
        # bfloat16 has eight bits: rounding is seen, and is no more than that.
        assert 1e-6 < abs(difference).max() < 0.05
    identity = identify(half, subjects[1])
    model = LoadedModel(identity.model, identity.entry, scoring=half.scoring)
    model.attach_adapter(score.adapter_of(identity))
    model.load()
    assert model.base.dtype == torch.bfloat16


def test_the_precision_counts_and_leaves_older_scores_as_they_are(
    scored: tuple[Study, list], study: Study, scored_alone: list
) -> None:
    half, subjects = scored
    assert scoring_digest(half) != scoring_digest(study)
    assert identify(half, subjects[1]).digest != identify(study, subjects[1]).digest
    results = subjects[0].out.parent.parent
    assert next(iter(collect(half, results))).status == "scored"
    other = next(iter(collect(study, results)))
    assert (other.status, other.score) == ("missing", None)
    assert other.reason == "scored in 16bit, not in 32bit as scoring.precision says now"


def test_a_cpu_without_instructions_for_it_is_named(
    scored: tuple[Study, list], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    half, subjects = scored
    said = []
    for has in (False, True, None):
        monkeypatch.setattr(score, "cpu_has_bf16", lambda has=has: has)
        score.score_subjects(study=half, subjects=subjects)
        said.append("this CPU has no instructions for bfloat16" in "".join(capsys.readouterr()))
    assert said == [True, False, False]


def test_it_is_for_runs_in_32_bits(study: Study, tmp_path: Path) -> None:
    settings = yaml.safe_load(study.path.read_text())
    settings["scoring"] = {"precision": "16bit", "target": ["heldout_loss"]}
    settings["grid"]["axes"]["precision"] = ["32bit", "16bit"]
    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump(settings))
    message = r"scoring\.precision: only for runs in 32bit \(a run is in 16bit\)\. Fix: set it to as_trained"
    with pytest.raises(UserError, match=message):
        load_study(str(file))
    del settings["grid"]["axes"]["precision"]
    file.write_text(yaml.safe_dump(settings))
    assert load_study(str(file)).scoring.precision == "16bit"
