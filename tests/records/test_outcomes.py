"""The outcomes of a study: bases, runs, runs at parts of their budget, and adopted adapters."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from loragrid.records.outcomes import Outcome, collect, identical_weights
from loragrid.records.record import ScoreRecord, write_record
from loragrid.reporting.runs_section import identical_runs
from loragrid.study.study_file import Study
from tests.fixtures.studies import toy_study
from tests.records.test_records import RUN, SCORE


@pytest.fixture
def study(tmp_path: Path, toy_llama: Path) -> Study:
    """Two runs that are scored at a half and at a quarter too, and an adopted adapter."""
    adapter = tmp_path / "theirs"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).write_text("{}")
    return toy_study(
        {"toy": toy_llama},
        grid={"axes": {"rank": [4, 16]}},
        scoring={"at": [1.0, 0.5, 0.25]},
        adopt={"theirs": {"path": str(adapter), "model": "toy"}},
    )


def write_score(results: Path, subject: str, **changes: object) -> ScoreRecord:
    score = replace(SCORE, subject=subject, **changes)
    write_record(results / "score" / subject / "score.json", score)
    return score


def by_subject(study: Study, results: Path) -> dict[str, Outcome]:
    return {outcome.subject: outcome for outcome in collect(study, results)}


def test_nothing_has_run_yet(study: Study, tmp_path: Path) -> None:
    found = collect(study, tmp_path)
    assert [outcome.kind for outcome in found] == ["base", "run", "run", "adopted"]
    assert {outcome.status for outcome in found} == {"missing"}
    assert [part.share for part in found[1].along] == [0.25, 0.5] and not found[0].along and not found[3].along
    assert [(part.subject, part.status) for part in found[1].along] == [
        (f"{study.cells[0].run}@0.25", "missing"),
        (f"{study.cells[0].run}@0.5", "missing"),
    ]


def test_every_kind_of_subject_with_its_scores(study: Study, tmp_path: Path) -> None:
    run, (adopted,), (base,) = study.cells[0].run, study.adopted, study.bases
    write_record(tmp_path / "train" / run / "record.json", replace(RUN, run=run))
    for subject, changes in (
        (base, {"kind": "base", "weights_sha256": None}),
        (run, {}),
        (f"{run}@0.5", {"share": 0.5}),
        (adopted, {"kind": "adopted", "weights_sha256": "theirs"}),
    ):
        write_score(tmp_path, subject, **changes)
    found = by_subject(study, tmp_path)
    assert [found[name].status for name in (base, run, adopted)] == ["scored"] * 3
    assert found[adopted].cell is None and found[adopted].record is None and found[adopted].base == base
    quarter, half = found[run].along
    assert (half.status, half.score.share, half.cell) == ("scored", 0.5, study.cells[0])
    assert (quarter.status, quarter.reason, quarter.score) == ("trained", "not scored yet", None)


def test_scores_of_other_weights_do_not_count(study: Study, tmp_path: Path) -> None:
    run = study.cells[0].run
    write_record(tmp_path / "train" / run / "record.json", replace(RUN, run=run, weights_sha256="new"))
    write_score(tmp_path, run)
    write_score(tmp_path, f"{run}@0.5", share=0.5)
    outcome = by_subject(study, tmp_path)[run]
    for found in (outcome, outcome.along[1]):
        assert (found.status, found.score) == ("trained", None) and "other weights" in found.reason


def test_a_diverged_run_keeps_the_scores_of_what_it_kept(study: Study, tmp_path: Path) -> None:
    run = study.cells[0].run
    record = replace(RUN, run=run, status="diverged", reason="NaN at step 7", weights_sha256=None, kept_at=(0.25,))
    write_record(tmp_path / "train" / run / "record.json", record)
    write_score(tmp_path, run, status="not_scored", reason="the run diverged", weights_sha256=None)
    write_score(tmp_path, f"{run}@0.25", share=0.25, weights_sha256=None)
    reason = "0.5 of the budget: the run diverged before it"
    write_score(tmp_path, f"{run}@0.5", share=0.5, status="not_scored", reason=reason, weights_sha256=None)
    outcome = by_subject(study, tmp_path)[run]
    assert (outcome.status, outcome.reason) == ("diverged", "NaN at step 7")
    assert [(part.status, part.reason) for part in outcome.along] == [("scored", None), ("failed", reason)]


def test_a_score_that_cannot_be_read_is_named(study: Study, tmp_path: Path) -> None:
    (adopted,) = study.adopted
    path = tmp_path / "score" / adopted / "score.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    outcome = by_subject(study, tmp_path)[adopted]
    assert outcome.status == "unreadable" and "score.json" in outcome.reason


def test_runs_of_identical_weights_are_found(study: Study, tmp_path: Path) -> None:
    runs = [cell.run for cell in study.cells[:3]]
    for run, weights in zip(runs, ("same", "same", "other")):
        write_record(tmp_path / "train" / run / "record.json", replace(RUN, run=run, weights_sha256=weights))
    found = identical_weights(collect(study, tmp_path))
    assert found == [tuple(runs[:2])]
    labels = dict(zip(runs, ("rank 16", "<batch>", "rank 64")))
    page = SimpleNamespace(outcomes=collect(study, tmp_path), compared=SimpleNamespace(labels=labels))
    (sentence,) = identical_runs(page)
    assert sentence.startswith("“rank 16” and “<batch>” have byte-identical weights: what they differ in had no effect")
