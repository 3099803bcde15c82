"""The jobs of a study as the rules ask for them, without Snakemake."""

from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.planning.job_resources import resource_requests
from loragrid.study.study_file import Study, load_study
from loragrid.workflow.jobs import Jobs, files_digest
from tests.fixtures.score_toys import write_adapter
from tests.fixtures.studies import GENERATED, changed, toy_study


@pytest.fixture
def study() -> Study:
    return load_study("demo")


def jobs_of(study: Study, results: str = "results/demo") -> Jobs:
    return Jobs(study, results=results, session_minutes=None)


def test_earlier_cells_come_first_and_a_cell_is_trained_once_all_before_it_are_scored(study: Study) -> None:
    jobs = jobs_of(study)
    first, second = study.cells[:2]
    assert jobs.data_priority(first.data) == jobs.priority(first.base) == jobs.priority(first.run)
    train = [jobs.train_priority(cell.run) for cell in study.cells]
    score = [jobs.priority(cell.run) for cell in study.cells]
    assert score[0] > train[0] > score[1] > train[1] and min(train) > 0
    assert jobs.priority(second.run) < jobs.priority(first.run)
    assert jobs.priority("a_winner_00000000") == 0


def test_all_cells_are_trained_before_vllm_scores_any(study: Study) -> None:
    jobs = jobs_of(changed(study, scoring__engine="vllm"))
    score = [jobs.priority(cell.run) for cell in study.cells]
    train = [jobs.train_priority(cell.run) for cell in study.cells]
    # A data set that waited for scores would keep its cells waiting too.
    data = [jobs.data_priority(cell.data) for cell in study.cells]
    assert min(train + data) > max(score) and train == sorted(train, reverse=True)


def test_a_subject_is_scored_on_the_data_of_its_model(study: Study) -> None:
    jobs = jobs_of(study)
    for cell in study.cells:
        assert jobs.card(cell.run) == jobs.card(cell.base) == f"results/demo/data/{cell.data}/card.json"
        assert jobs.study_file(cell.run) == '"$STUDY"'


def test_a_run_that_the_study_lacks_is_one_line(study: Study) -> None:
    with pytest.raises(UserError, match=r"^llama_lr1_00000000: not a run or base of demo\. Fix: see `snakemake -n`\.$"):
        jobs_of(study).card("llama_lr1_00000000")


def test_what_a_job_asks_for_is_the_plan_s(study: Study) -> None:
    planned = resource_requests(study, study.cells, results=Path("nowhere"), session_minutes=None)
    jobs = jobs_of(study)
    for cell in study.cells:
        assert jobs.request("train", cell.run) == planned["train"][cell.run]
        assert jobs.request("score", cell.base) == planned["score"][cell.base]
    base_case = study.cells[0].run
    assert jobs.request("train", "a_winner_00000000") == planned["train"][base_case]


def test_scores_of_all_bases_runs_and_the_winner_or_of_those_that_exist(study: Study, tmp_path: Path) -> None:
    jobs = jobs_of(study, str(tmp_path))
    files = jobs.score_files("w_00000000", partial=False)
    assert len(files) == len(study.bases) + len(study.cells) + 1 and files[-1].endswith("/score/w_00000000/score.json")
    assert jobs.score_files(None, partial=True) == []
    Path(files[0]).parent.mkdir(parents=True)
    Path(files[0]).touch()
    assert jobs.score_files(None, partial=True) == files[:1]


@pytest.fixture
def adopting(toy_llama: Path, toy_gemma: Path, tmp_path: Path) -> Study:
    """A study scored along its runs, with an adapter for a base that no run has."""
    write_adapter(toy_gemma, tmp_path / "theirs", seed=1)
    return toy_study(
        {"toy": toy_llama, "gem": toy_gemma},
        base_case={"threads": 2, "precision": "32bit"},
        grid={"axes": {"rank": [4, 16], "threads": [1, 2]}},
        scoring={"at": [0.25, 1.0]},
        adopt={"theirs": {"path": str(tmp_path / "theirs"), "model": "gem"}},
    )


def test_parts_of_a_budget_and_adopted_adapters_are_scored_too(adopting: Study) -> None:
    jobs, first = jobs_of(adopting), adopting.cells[0]
    (adopted,), files = adopting.adopted, jobs_of(adopting).score_files(None, partial=False)
    subjects = [Path(file).parent.name for file in files]
    runs = [cell.run for cell in adopting.cells]
    assert len(adopting.bases) == 2 and subjects[:2] == list(adopting.bases) and subjects[-1] == adopted
    assert subjects[2:-1] == [name for run in runs for name in (run, f"{run}@0.25")]
    part = f"{first.run}@0.25"
    assert jobs.card(part) == jobs.card(first.run) and jobs.record(part) == jobs.record(first.run)
    assert jobs.priority(part) == jobs.priority(first.run) > jobs.priority(adopted) == 0
    assert jobs.request("score", part) == jobs.request("score", first.run)
    assert jobs.study_file(part) == jobs.study_file(adopted) == '"$STUDY"'


def test_an_adapter_is_scored_on_the_data_of_its_base_which_no_run_needs(adopting: Study) -> None:
    jobs, (adopted,) = jobs_of(adopting), adopting.adopted
    base = adopting.adopted[adopted].cell.base
    assert base in adopting.bases and base not in {cell.base for cell in adopting.cells}
    assert jobs.card(adopted) == jobs.card(base) == f"results/demo/data/{adopting.bases[base].data}/card.json"
    assert adopting.bases[base].data in adopting.data_sets
    assert jobs.request("score", adopted) == jobs.request("score", base)


def test_a_run_has_the_threads_of_its_own_cell(adopting: Study) -> None:
    jobs = jobs_of(adopting)
    assert [jobs.threads(cell.run) for cell in adopting.cells] == [cell.settings.threads for cell in adopting.cells]
    assert {cell.settings.threads for cell in adopting.cells} == {1, 2}


def test_a_base_in_several_data_sets_is_scored_once(toy_llama: Path) -> None:
    data = {name: {"source": dict(GENERATED), "rows": rows} for name, rows in (("small", 100), ("large", 200))}
    study = toy_study({"toy": toy_llama}, data=data, grid={"axes": {"data": ["small", "large"]}})
    (base,), jobs = study.bases, jobs_of(study)
    assert len(study.data_sets) == 2 and jobs.card(base) == jobs.card(study.cells[0].run)
    assert jobs.card(study.cells[1].run) != jobs.card(base)


def test_a_search_that_is_not_part_of_the_study_is_shown_and_no_input(study: Study, tmp_path: Path) -> None:
    jobs = jobs_of(study, str(tmp_path))
    assert not jobs.searched and jobs.winner() is None and jobs.shown_search_digest() is None
    Path(jobs.search_result).parent.mkdir()
    Path(jobs.search_result).write_text("{}")
    assert jobs.shown_search_digest() is not None
    part = Jobs(changed(study, tune__enabled=True), results=str(tmp_path), session_minutes=None)
    assert part.searched and part.shown_search_digest() is None
    assert jobs.search_digest() != jobs_of(changed(study, tune__trials=30)).search_digest()
    assert jobs_of(changed(study, tune=None)).search_digest() is None


def test_files_digest_is_of_names_and_contents_wherever_they_are(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "x.css").write_text("body")
    assert files_digest((tmp_path / "a").glob("*")) == files_digest((tmp_path / "b").glob("*"))
    (tmp_path / "b" / "x.css").write_text("html")
    assert files_digest((tmp_path / "a").glob("*")) != files_digest((tmp_path / "b").glob("*"))


def test_an_export_needs_the_run_and_its_scores_or_the_comparison(study: Study) -> None:
    jobs, cell = jobs_of(study), study.cells[1]
    folder = "results/demo"
    scores = [f"{folder}/score/{subject}/score.json" for subject in (cell.run, cell.base)]
    assert jobs.export_files(cell.run) == [f"{folder}/train/{cell.run}/record.json", *scores]
    assert jobs.export_files(None) == [f"{folder}/compare/compare.json"]
    with pytest.raises(UserError, match=r"^nobody_00000000: not a run or base of demo"):
        jobs.export_files("nobody_00000000")
