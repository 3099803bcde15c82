"""The short form of the resume certificate, and that it can fail."""

import json
from pathlib import Path

import pytest

import train_toys
from study import killed_runs
from study.grid import expand
from study.study_file import load_study


@pytest.fixture(scope="module")
def toy_train(toy_llama: Path, tmp_path_factory: pytest.TempPathFactory):
    """A function that trains the toy cell (dropout, two passes over the data) in a folder; libraries imported."""
    from certify import import_training_libraries
    from train import train_run

    folder = tmp_path_factory.mktemp("certify")
    study = load_study(str(train_toys.write_study(folder, toy_llama, training__save_steps=3)))
    cell, data = expand(study)[0], train_toys.write_data(folder / "data")
    import_training_libraries()
    return lambda out: train_run(study=study, cell=cell, data_folder=data, out=out)


def test_a_run_killed_five_times_equals_the_uninterrupted_one(toy_train, tmp_path: Path) -> None:
    found = killed_runs.certify_resume(toy_train, work=tmp_path, kills=5, seed=3, save_steps=3)
    assert found["holds"] and found["kills"] == 5 and found["runs"] >= 1
    assert all(found["equal"].values())
    assert found["most_steps_replayed"] <= 3


def test_a_difference_is_not_certified(toy_train, tmp_path: Path) -> None:
    """A trainer that forgets its checkpoint's loss rows after a kill must be found out."""
    runs = []

    def forgetful(out: Path) -> None:
        toy_train(out)
        if out.name != "reference":
            losses = out / "losses.csv"
            losses.write_text("".join(losses.read_text().splitlines(keepends=True)[:-1]))
        runs.append(out)

    found = killed_runs.certify_resume(forgetful, work=tmp_path, kills=1, seed=3, save_steps=3)
    assert not found["holds"]
    assert found["equal"] == {
        "adapter": True,
        "loss_rows": False,
        "learning_rates": False,
        "sample_order": True,
        "random_states": True,
    }
    assert json.dumps(found)
