"""The short form of the backup certificate, and that it can fail."""

import random
from pathlib import Path

import pytest

from loragrid.backup.results import copies_of, place_of
from loragrid.study.study_file import load_study
from loragrid.training.kill_and_wipe import WipeTest, certify_backup
from loragrid.training.run_backup import RunBackup
from tests.fixtures import train_toys
from tools import certify
from tools.certify_backup import summary

# Kills between and during copies are tested on their parts in tests/training/test_run_backup.py too.
pytestmark = pytest.mark.long

# The first moment drawn with this seed is the beginning of the second copy.
SECOND_COPY = 15


@pytest.fixture
def test_of_toy(toy_llama: Path, tmp_path: Path) -> WipeTest:
    """The toy run with copies in a folder, killed twice; libraries imported."""
    from train import train_run

    study = load_study(str(train_toys.write_study(tmp_path, toy_llama, training__save_steps=3)))
    cell, data = study.cells[0], train_toys.write_data(tmp_path / "data")
    certify.import_training_libraries()
    backed_up = study.with_backup(f"folder:{tmp_path / 'copies'}")
    return WipeTest(
        train=lambda out: train_run(study=backed_up, cell=cell, data_folder=data, out=out),
        reference=lambda out: train_run(study=study, cell=cell, data_folder=data, out=out),
        copies=copies_of(place_of(backed_up), backed_up, "train", cell.run),
        kills=2,
        moments=random.Random(SECOND_COPY),
    )


def test_a_run_killed_and_wiped_twice_equals_the_undisturbed_one(test_of_toy: WipeTest, tmp_path: Path) -> None:
    found = certify_backup(test_of_toy, work=tmp_path / "work")
    assert found["holds"] and found["kills"] == 2 and all(found["equal"].values())
    assert "2 kills and wipes" in summary(found) and "different: nothing" in summary(found)


def test_a_trainer_that_ignores_its_copies_is_not_certified(
    test_of_toy: WipeTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are equal, but it starts from nothing although a whole copy is there."""
    test_of_toy.kills = 1
    monkeypatch.setattr(RunBackup, "restore", lambda self: None)
    found = certify_backup(test_of_toy, work=tmp_path / "work")
    assert all(found["equal"].values()) and found["sessions_not_resumed"] == 1 and not found["holds"]
