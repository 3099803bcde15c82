"""The study for a laptop: what its file promises."""

from pathlib import Path

import pytest

from loragrid.scoring.prompts import read_prompts
from loragrid.study.study_file import Study, load_study
from loragrid.study.tasks import scoring_digest


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study("laptop")


def test_three_settings_under_two_seeds_each(study: Study) -> None:
    arms = {}
    for cell in study.cells:
        arms.setdefault(cell.settings.learning_rate, []).append(cell.settings.seed)
    assert arms == {rate: [1, 2] for rate in (5.0e-4, 5.0e-5, 5.0e-3)}
    assert {cell.settings.threads for cell in study.cells} == {study.scoring.threads} == {2}


def test_its_tasks_are_lm_eval_s_own_and_need_no_generated_answer(study: Study) -> None:
    from lm_eval.tasks import TaskManager

    assert scoring_digest(study)
    known = TaskManager().all_tasks
    assert len(study.scoring.retention) == 6 and set(study.scoring.retention) <= set(known)


def test_its_prompts_are_short_and_distinct(study: Study) -> None:
    prompts = read_prompts(Path(study.scoring.qualitative))
    assert len({prompt.prompt for prompt in prompts}) == len(prompts) == 8
    assert all(len(prompt.reference) < 250 for prompt in prompts)
