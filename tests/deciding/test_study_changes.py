"""A proposed study file: as its user wrote it, with additions only, and every finished run with its old name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from loragrid.deciding.study_changes import NOTHING, Change, changed_file, study_text
from loragrid.paths import ROOT
from loragrid.study.study_file import Study, load_study
from loragrid.study.tasks import scoring_digest

RANK_64 = (("rank", "64"),)
DEPARTS = {RANK_64: {"rank": 64}}


def written(study: Study, change: Change, folder: Path) -> Study:
    """The changed study, loaded from a file of its own folder."""
    path = folder / "next" / "made.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(study_text("made", changed_file(study, change, DEPARTS)))
    return load_study(str(path))


def added(before: Study, after: Study) -> list[tuple[dict, int]]:
    """Arm and seed of every run that only the second study has; it has all of the first."""
    old = {cell.run for cell in before.cells}
    assert old <= {cell.run for cell in after.cells}
    return [(cell.arm, cell.settings.seed) for cell in after.cells if cell.run not in old]


def test_without_a_change_it_is_the_same_study(make: Callable[..., Study], tmp_path: Path) -> None:
    study = make()
    same = written(study, NOTHING, tmp_path)
    assert added(study, same) == [] and same.name == study.name and set(same.bases) == set(study.bases)
    assert set(same.data_sets) == set(study.data_sets) and scoring_digest(same) == scoring_digest(study)


def test_seeds_of_single_arms(make: Callable[..., Study], tmp_path: Path) -> None:
    study = make()
    after = written(study, Change(arm_seeds={(): (3,), RANK_64: (3, 4)}), tmp_path)
    assert added(study, after) == [({}, 3), ({"rank": 64}, 3), ({"rank": 64}, 4)]
    again = written(after, Change(arm_seeds={RANK_64: (4, 5)}), tmp_path)
    assert added(after, again) == [({"rank": 64}, 5)]
    # Seeds of all arms make those of single arms their own.
    everywhere = written(again, Change(grid_seeds=(3,)), tmp_path)
    assert len(added(again, everywhere)) == 3  # rates and rank 4; the base case and rank 64 have it
    assert scoring_digest(everywhere) == scoring_digest(study)


def test_a_study_without_listed_seeds_keeps_its_default_seed(make: Callable[..., Study], tmp_path: Path) -> None:
    study = make(seed=None)
    assert {seed for _, seed in added(study, written(study, Change(grid_seeds=(7,)), tmp_path))} == {7}


def test_more_items_score_again_and_train_nothing(make: Callable[..., Study], tmp_path: Path) -> None:
    study = make(scoring={"limit": 50, "retention": ["world_facts"]})
    after = written(study, Change(items={"running_plan": 90}), tmp_path)
    assert added(study, after) == [] and scoring_digest(after) != scoring_digest(study)
    assert dict(after.scoring.limit) == {"running_plan": 90, "others": 50}


def test_values_and_named_arms(make: Callable[..., Study], tmp_path: Path) -> None:
    study = make()
    values = (("rank", 256), ("budget", {"tokens": 160000}))
    after = written(study, Change(values=values, named={"long": {"evaluations": 9}}), tmp_path)
    arms = [arm for arm, seed in added(study, after) if seed == 1]
    assert sorted(map(str, arms)) == sorted(
        map(str, [{"rank": 256}, {"budget": {"tokens": 160000}}, {"cells": "long"}])
    )


def test_two_changes_together_add_what_both_add(make: Callable[..., Study], tmp_path: Path) -> None:
    one = Change(arm_seeds={(): (3,)}, items={"running_plan": 60}, values=(("rank", 256),))
    other = Change(arm_seeds={(): (3, 4), RANK_64: (3,)}, items={"running_plan": 80}, values=(("rank", 256),))
    both = one | other
    assert both.arm_seeds == {(): (3, 4), RANK_64: (3,)} and both.items == {"running_plan": 80}
    assert both.values == one.values and both.seeds_of(()) == (3, 4)


def test_paths_beside_the_study_file_still_lead_there(make: Callable[..., Study], tmp_path: Path, root: Path) -> None:
    """The new file is in another folder: a model, a task and its limit are named by paths."""
    task = (root / "config" / "tasks" / "demo" / "running_plan.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(task)
    for name in ("metrics.py", "running_plan.jsonl"):
        (tmp_path / name).write_bytes((root / "config" / "tasks" / "demo" / name).read_bytes())
    study = make(scoring={"target": ["mine.yaml"], "limit": {"mine.yaml": 50, "others": 10}})
    after = written(study, Change(items={study.scoring.target[0]: 70}), tmp_path)
    assert added(study, after) == []
    assert dict(after.scoring.limit) == {str(tmp_path / "mine.yaml"): 70, "others": 10}
    # The study file beside the task counts for nothing, whatever folder it is run from.
    assert scoring_digest(written(study, NOTHING, tmp_path)) == scoring_digest(study)


@pytest.mark.parametrize("name", ["demo", "demo_methods", "demo_data", "demo_interaction", "t4"])
def test_every_shipped_study_survives(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    path = tmp_path / f"{name}.yaml"
    path.write_text(study_text(name, changed_file(study, NOTHING, {})))
    same = load_study(str(path))
    assert [cell.run for cell in same.cells] == [cell.run for cell in study.cells]
    assert scoring_digest(same) == scoring_digest(study)
    assert str(ROOT) not in path.read_text()  # paths of the project stay relative
