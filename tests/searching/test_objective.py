"""A search for a task's metric: its name is checked first, and a trial is scored as the score stage scores a run."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.models.adapter_files import save_trained
from loragrid.scoring.lm_eval_tasks import StudyTask, find_tasks
from loragrid.scoring.loaded_model import LoadedModel
from loragrid.searching.objective import read_objective, trial_scorer
from loragrid.searching.search_items import search_items
from loragrid.searching.trials import TrialRunner, search_name
from loragrid.study.study_file import Study
from tests.fixtures.search_toys import MODEL_TUNE
from tests.fixtures.train_toys import Toy, make_toy
from tests.searching.test_trials import OTHER, POINT, kept, run
from tune import tune

SCORING = {"target": ["world_facts", "running_plan"], "retention": ["heldout_loss"], "limit": 4, "batch_size": 3}
OBJECTIVE = "world_facts:acc"


def with_objective(toy: Toy, objective: str, **changes: object) -> Study:
    settings = toy.study.yaml["tune"] | {"objective": objective} | changes
    return dataclasses.replace(toy.study, yaml=toy.study.yaml | {"tune": settings})


@pytest.fixture(scope="module")
def scored(toy_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    folder = tmp_path_factory.mktemp("scored")
    toy = make_toy(folder, toy_llama, scoring=SCORING, tune=MODEL_TUNE | {"trials": 2, "pruner": None})
    return dataclasses.replace(toy, study=with_objective(toy, OBJECTIVE))


def test_a_trial_is_scored_as_the_score_stage_scores_its_adapter(
    scored: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By likelihoods in padded batches and by generated answers; the model trains on as before."""
    plain = TrialRunner(scored.study, scored.data)
    expected = [run(plain, point, tmp_path / f"plain{i}") for i, point in enumerate((POINT, OTHER))]
    for name in (OBJECTIVE, "running_plan:new_tokens"):
        task = name.partition(":")[0]
        (built,) = find_tasks([task], limit=4).values()
        objective = dataclasses.replace(read_objective(scored.study), task=built, metric=name.partition(":")[2])
        scorer = trial_scorer(scored.study, objective, scored.data)
        runner = TrialRunner(scored.study, scored.data, score=scorer)
        release = runner.backend.release

        def saving(base: object, model: object, folder: Path = tmp_path / task, release: object = release) -> object:
            save_trained(model, folder, tokenizer=base.tokenizer)
            return release(base, model)

        monkeypatch.setattr(runner.backend, "release", saving)
        trial = run(runner, POINT, tmp_path / f"{task}-trial")
        assert kept(trial) | {"value": None} == kept(expected[0]) | {"value": None}, "scoring changed the training"
        loaded = LoadedModel("toy", scored.study.base_entry(scored.cell), scoring=scored.study.scoring)
        loaded.attach_adapter(tmp_path / task / "adapter")
        metrics = loaded.score(built).metrics
        assert trial.value == metrics[objective.metric]["value"]
        monkeypatch.setattr(runner.backend, "release", release)
        after = run(runner, OTHER, tmp_path / f"{task}-after")
        assert kept(after) | {"value": None} == kept(expected[1]) | {"value": None}, "scoring changed the next trial"


def test_a_search_chooses_by_items_that_the_final_score_does_not_use(scored: Toy) -> None:
    objective = read_objective(scored.study)
    assert objective.task.places == {"world_facts": [4, 5, 6, 7]} and objective.items == 4
    model = LoadedModel("toy", scored.study.base_entry(scored.cell), scoring=scored.study.scoring)
    (final,) = find_tasks(["world_facts"], limit=4).values()
    (both,) = find_tasks(["world_facts"], limit=8).values()
    asked = {}
    for name, task in (("search", objective.task), ("final", final), ("both", both)):
        items = model.score(task).items
        asked[name] = {row["prompt_sha256"] for row in items}
    assert len(asked["search"]) == len(asked["final"]) == 4 and asked["search"] == asked["both"] - asked["final"]


class FakeTask:
    """As much of an lm-eval task as the choice of items needs."""

    def __init__(self, documents: list[dict[str, str]]) -> None:
        self.documents = documents

    def doc_iterator(self, *, limit: int | None) -> Iterator[tuple[int, dict[str, str]]]:
        return enumerate(self.documents[:limit])

    def doc_to_text(self, doc: dict[str, str]) -> str:
        return doc["question"]

    def construct_requests(self, *, doc: dict[str, str], ctx: str, metadata: object) -> Any:
        return SimpleNamespace(args=(ctx, {"max_gen_toks": 9}))

    def get_config(self, key: str) -> None:
        return None


def items_of(questions: list[str], limit: int) -> list[int]:
    """The places of the items that a search may use; a question's passage is what stands before a colon."""
    documents = [dict(zip(("question", "passage"), (q, q.partition(":")[0] if ":" in q else ""))) for q in questions]
    task = StudyTask("t", {"tasks": {"t": FakeTask(documents)}}, None, "", limit)
    return search_items(task, where="here")["t"]


def test_items_that_repeat_a_request_or_share_a_passage_are_not_used() -> None:
    assert items_of(["a", "b", "c", "a", "d"], 2) == [2, 4]
    assert items_of(["p: a", "b", "p: c", "q: a", "d"], 2) == [3, 4]
    assert items_of(list("abcdefg"), 2) == [2, 3], "no more than the final score has"
    with pytest.raises(
        UserError, match=r"^here: the 2 items of t after scoring\.limit repeat requests of those before"
    ):
        items_of(["a", "b", "a", "b"], 2)


@pytest.mark.parametrize("limit", [None, 100])
def test_without_items_of_its_own_a_search_is_refused(scored: Toy, limit: int | None) -> None:
    study = with_objective(scored, OBJECTIVE)
    study = dataclasses.replace(study, yaml=study.yaml | {"scoring": study.yaml["scoring"] | {"limit": limit}})
    with pytest.raises(UserError) as caught:
        read_objective(study)
    assert str(caught.value) == (
        "toy.yaml: tune.objective: the final scores use all 100 items of world_facts, so none is left to choose by. "
        "Fix: lower scoring.limit for world_facts, which leaves the items after it to the search, or use "
        "validation_loss."
    )


def test_the_search_chooses_by_the_task(scored: Toy, tmp_path: Path) -> None:
    found = tune(study=scored.study, data_folder=scored.data, out=tmp_path / "tune")
    assert found["chosen_on"] == {"training": 24, "validation": 6, "items": 4}
    assert found["objective"] == {"task": "world_facts", "metric": "acc", "higher_is_better": True}
    values = [row["value"] for row in found["rows"] if row["outcome"] == "complete"]
    assert found["best"]["value"] == max(values) and all(0 <= value <= 1 for value in values)
    assert all(row["loss"] != row["value"] for row in found["rows"])


def test_a_value_that_is_no_number_fails_the_trial(scored: Toy, tmp_path: Path) -> None:
    runner = TrialRunner(scored.study, scored.data, score=lambda model: float("nan"))
    trial = run(runner, POINT, tmp_path / "trial")
    assert (trial.outcome, trial.reason) == ("failed", "ValueError: world_facts:acc is nan")


def test_a_wrong_metric_is_one_line_before_any_trial(
    scored: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrialRunner, "load", lambda self: pytest.fail("the base was loaded"))
    study = with_objective(scored, "world_facts:accuracy")
    with pytest.raises(UserError) as caught:
        tune(study=study, data_folder=scored.data, out=tmp_path / "tune")
    text = str(caught.value)
    assert text.startswith("toy.yaml: tune.objective: not a metric of the task ('accuracy'). Fix: use one of ")
    assert "world_facts:acc" in text and "\n" not in text
    # A measure of answers has no better direction.
    with pytest.raises(
        UserError, match=r"not a metric of the task \('new_tokens'\)\. Fix: use one of running_plan:exact"
    ):
        read_objective(with_objective(scored, "running_plan:new_tokens"))


def test_the_search_depends_on_the_task_s_items_and_limit(scored: Toy) -> None:
    name = search_name(scored.study)
    assert search_name(with_objective(scored, "running_plan:exact")) != name
    assert search_name(with_objective(scored, "validation_loss")) != name
    fewer = dataclasses.replace(
        scored.study, yaml=scored.study.yaml | {"scoring": scored.study.yaml["scoring"] | {"limit": 3}}
    )
    assert search_name(fewer) != name
    plain = with_objective(scored, "validation_loss")
    other = dataclasses.replace(plain, yaml=fewer.yaml | {"tune": plain.yaml["tune"]})
    assert search_name(other) == search_name(plain), "the validation loss needs no task"
