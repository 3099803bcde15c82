"""The short form of the resume certificate, and that it can fail."""

import json
import os
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from loragrid.errors import Failed
from loragrid.study.study_file import load_study
from loragrid.training import kill_and_resume
from tests.fixtures import train_toys
from tools import certified_sessions, certify

# The first moment drawn with this seed is the beginning of the second save.
SECOND_SAVE = 345


@pytest.fixture(scope="module")
def toy_train(toy_llama: Path, tmp_path_factory: pytest.TempPathFactory):
    """A function that trains the toy cell (dropout, two passes over the data) in a folder; libraries imported."""
    from train import train_run

    folder = tmp_path_factory.mktemp("certify")
    study = load_study(str(train_toys.write_study(folder, toy_llama, training__save_steps=3)))
    cell, data = study.cells[0], train_toys.write_data(folder / "data")
    certify.import_training_libraries()
    return lambda out: train_run(study=study, cell=cell, data_folder=data, out=out)


def test_a_run_killed_five_times_equals_the_undisturbed_one(toy_train, tmp_path: Path) -> None:
    """With this seed four of the first five moments are in a save: updates are lost and made again."""
    found = kill_and_resume.certify_resume(toy_train, work=tmp_path, kills=5, seed=367, save_steps=3)
    assert found["holds"] and found["kills"] == 5 and found["runs"] >= 1
    assert all(found["equal"].values())
    assert found["kills_in_a_save"] >= 1 and found["kills_outside_training"] < 5
    assert 0 < found["most_steps_replayed"] <= 3 and found["steps_replayed"] > 0


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfd: no workers here")
def test_a_run_killed_in_a_worker_equals_one_of_a_process_of_its_own(
    toy_train, toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each session is the second job of its worker, which has loaded the base once."""
    from loragrid.models import base_cache

    folder, loads, load = tmp_path / "study", tmp_path / "loads", base_cache.load_base
    studies = []
    for name, changes in (("study", {}), ("earlier", {"base_case__seed": 1, "base_case__budget": {"steps": 1}})):
        (tmp_path / name).mkdir()
        path = train_toys.write_study(tmp_path / name, toy_llama, training__save_steps=3, **changes)
        studies.append(load_study(str(path)))
    data = train_toys.write_data(folder / "data")

    def counted(*arguments, **named):
        with loads.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return load(*arguments, **named)

    monkeypatch.setattr(base_cache, "load_base", counted)
    sessions = certified_sessions.Sessions(worker=True)
    train = certified_sessions.session_trainer(sessions, studies[0], data, earlier=studies[1])
    found = kill_and_resume.certify_resume(train, work=tmp_path / "work", kills=1, seed=SECOND_SAVE, save_steps=3)
    assert found["holds"] and found["kills"] == 1 and found["kills_outside_training"] == 0
    # The reference, the session that was killed, and the one that ended the run.
    assert len(loads.read_text().split()) == len(set(loads.read_text().split())) == 3
    assert "loaded again" not in (tmp_path / "work" / "run-0.log").read_text()


def test_a_trainer_that_never_resumes_is_not_certified(toy_train, tmp_path: Path) -> None:
    """Its bytes are equal, but killed in its second save it makes six updates again."""

    def without_checkpoints(out: Path) -> None:
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
        toy_train(out)

    found = kill_and_resume.certify_resume(without_checkpoints, work=tmp_path, kills=1, seed=SECOND_SAVE, save_steps=3)
    assert all(found["equal"].values()) and found["most_steps_replayed"] == 6
    assert not found["holds"]


def test_replayed_updates_come_from_the_history() -> None:
    steps = [("start", 0), ("end", 7), ("start", 5), ("end", 9), ("start", 0), ("end", 12), ("start", 12), ("end", 12)]
    assert kill_and_resume.replayed_updates([{"event": event, "step": step} for event, step in steps]) == [2, 9, 0]


def test_random_states_include_numpy_s_position() -> None:
    """Drawing one number moves numpy's position and leaves its key unchanged."""
    import numpy as np

    from loragrid.training.random_states import random_state_sha256

    np.random.seed(3)
    np.random.random_sample()  # the first number makes a new key
    before, key = random_state_sha256(), np.random.get_state()[1]
    np.random.random_sample()
    assert (np.random.get_state()[1] == key).all() and random_state_sha256() != before


@pytest.mark.parametrize(("differs", "library"), [(False, True), (False, False), (True, True)])
def test_the_certificate_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, differs: bool, library: bool
) -> None:
    """The command's file and lines; a variant that this machine cannot train makes it incomplete."""
    found = {
        "kills": 2,
        "kills_in_a_save": 1,
        "runs": 1,
        "steps_replayed": 3,
        "most_steps_replayed": 3,
        "save_steps": 4,
    }
    found |= {"equal": dict.fromkeys(kill_and_resume.COMPARED, not differs), "holds": not differs}
    monkeypatch.setattr(certify, "certify_resume", lambda train, **_: found)
    monkeypatch.setattr(certify, "prepare_data", lambda study, folder: folder)
    monkeypatch.setattr(certify, "import_training_libraries", lambda backend: None)
    monkeypatch.setattr(certify, "find_spec", lambda name: library or None)
    out = tmp_path / "certificate.json"
    monkeypatch.setattr(sys, "argv", ["certify.py", "--kills", "2", "--out", str(out)])
    with pytest.raises(Failed) if differs else nullcontext():
        certify.main()
    written, said = json.loads(out.read_text()), capsys.readouterr().out
    left_out = [] if library else ["dropout, 8-bit optimizer"]
    assert (written["holds"], written["complete"], list(written["skipped"])) == (not differs, library, left_out)
    assert [result["variant"] for result in written["variants"]] + left_out == list(certify.VARIANTS)
    first = "DOES NOT HOLD" if differs else f"holds for {3 - len(left_out)} of 3 variants"
    assert said.startswith(first) and all(f"{name}: not certified, bitsandbytes" in said for name in left_out)


def test_a_difference_is_not_certified(toy_train, tmp_path: Path) -> None:
    """The certificate detects a trainer that loses a loss row after a kill."""
    runs = []

    def forgetful(out: Path) -> None:
        toy_train(out)
        if out.name != "reference":
            losses = out / "losses.csv"
            losses.write_text("".join(losses.read_text().splitlines(keepends=True)[:-1]))
        runs.append(out)

    found = kill_and_resume.certify_resume(forgetful, work=tmp_path, kills=1, seed=3, save_steps=3)
    assert not found["holds"]
    assert found["equal"] == {
        "weights": True,
        "loss_rows": False,
        "learning_rates": False,
        "sample_order": True,
        "random_states": True,
    }
    assert json.dumps(found)
