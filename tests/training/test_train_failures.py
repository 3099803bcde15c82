"""Divergence, memory, disks and bugs: each ends in a record or in one line with a reason."""

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from loragrid.errors import Failed, UserError
from loragrid.records.failures import out_of_memory
from loragrid.records.outcomes import collect
from loragrid.records.record import RunRecord, read_record
from loragrid.study.study_file import load_study
from tests.fixtures.run_faults import (
    assert_equal,
    break_loss,
    cuda_out_of_memory,
    host_out_of_memory,
    train_on_a_disk_that_fills,
)
from tests.fixtures.train_toys import Toy, make_toy, rows_of, write_study


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_divergence_is_a_result(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    break_loss(monkeypatch, 7, value)
    record = toy.train(tmp_path / "run")
    assert (record.status, record.steps, record.weights_sha256) == ("diverged", 7, None)
    # The losses in its file are from before it diverged: they are not its final ones.
    assert record.final_train_loss is record.final_heldout_loss is None and record.first_heldout_loss is not None
    assert "step 7" in record.reason and record.sessions[-1].ended == "diverged"
    last = rows_of(tmp_path / "run")[-1]
    assert (last["step"], float(last["loss"])) == ("7", pytest.approx(value, nan_ok=True))
    assert not (tmp_path / "run" / "adapter").exists() and not (tmp_path / "run" / "checkpoints").exists()
    assert read_record(tmp_path / "run" / "record.json", RunRecord) == record


def test_base_with_nan_weights_diverges_before_the_first_update(toy_llama: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    model = shutil.copytree(toy_llama, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], math.nan)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    record = make_toy(tmp_path / "toy", model).train(tmp_path / "run")
    assert (record.status, record.steps) == ("diverged", 0) and "held-out" in record.reason


@pytest.mark.parametrize(
    ("make", "where", "needed", "available"),
    [
        (cuda_out_of_memory, "GPU", 2560.0, 812.0),
        (host_out_of_memory, "host", 2.0**40, None),
        (MemoryError, "host", None, None),
    ],
)
def test_out_of_memory_is_reported_with_figures(
    toy: Toy,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Any,
    where: str,
    needed: Any,
    available: Any,
) -> None:
    with monkeypatch.context() as patch:
        break_loss(patch, 7, make())
        with pytest.raises(Failed, match=f"out of {where} memory"):
            toy.train(tmp_path / "run")
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert (failure["reason"], failure["where"], failure["needed_mib"]) == (
        "out_of_memory",
        where,
        needed,
    )
    assert failure["available_mib"] == available if available else failure["available_mib"] > 0
    assert failure["step"] == 6 and failure["run"] == toy.cell.run and "\n" not in failure["message"]
    assert not (tmp_path / "run" / "record.json").exists()
    # On a larger machine the same command resumes, with the batch unchanged.
    toy.train(tmp_path / "run")
    assert not (tmp_path / "run" / "failure.json").exists()
    assert_equal(tmp_path / "run", reference)


def test_a_bug_keeps_its_traceback_and_leaves_a_reason(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_loss(monkeypatch, 7, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        toy.train(tmp_path / "run")
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert (failure["reason"], failure["error"], failure["message"]) == (
        "error",
        "ZeroDivisionError",
        "a bug",
    )


def test_other_cells_train_after_one_ran_out_of_memory(
    toy: Toy, toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the tables one is failed, with its reason, and the other trained."""
    path = write_study(tmp_path, toy_llama)
    settings = yaml.safe_load(path.read_text())
    settings["grid"] = {"axes": {"learning_rate": [1.0e-2, 1.0e-3]}}
    path.write_text(yaml.safe_dump(settings))
    study = load_study(str(path))
    first, second = study.cells
    folder = tmp_path / "results" / "train"
    with monkeypatch.context() as patch:
        break_loss(patch, 7, cuda_out_of_memory())
        with pytest.raises(Failed, match="out of GPU memory"):
            Toy(study=study, cell=first, data=toy.data).train(folder / first.run)
    Toy(study=study, cell=second, data=toy.data).train(folder / second.run)
    outcomes = {outcome.subject: outcome for outcome in collect(study, tmp_path / "results")}
    assert (outcomes[first.run].status, outcomes[second.run].status) == ("failed", "trained")
    assert "2560.0 MiB more needed" in outcomes[first.run].reason


def test_numpy_s_memory_errors_are_recognised() -> None:
    import numpy as np

    with pytest.raises(MemoryError) as error:
        np.empty(2**60, dtype=np.uint8)
    assert out_of_memory(error.value)["needed_mib"] == 2.0**40
    assert out_of_memory(MemoryError("Unable to allocate 1.50 TiB for an array"))["needed_mib"] == 1.5 * 2**20


def test_a_failure_keeps_its_own_reason(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_loss(monkeypatch, 7, Failed("the card fell off"))
    with pytest.raises(Failed, match="fell off"):
        toy.train(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "failure.json").read_text())["reason"] == "failed"


def test_full_disk_keeps_the_older_checkpoint(toy: Toy, reference: Path, small_disk: Path) -> None:
    out = small_disk / "run"
    with pytest.raises(Failed, match=f"{out / 'checkpoints'}: the disk is full"):
        train_on_a_disk_that_fills(toy, out, small_disk, step=10)
    names = {path.name for path in (out / "checkpoints").iterdir()}
    assert names == {"checkpoint-5"}
    (small_disk / "ballast").unlink()
    record = toy.train(out)
    assert [s.start_step for s in record.sessions] == [0, 5]
    assert_equal(out, reference)


def test_read_only_folder_is_one_line(toy: Toy, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match="cannot be written"):
        toy.train(small_disk / "run")


def test_folder_that_is_a_file_is_one_line(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="cannot be written"):
            toy.train(out)
