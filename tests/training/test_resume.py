"""Resuming a run: from which checkpoints, to which bytes. Every damage to a file: test_checkpoint.py."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Paused, UserError
from tests.fixtures.run_faults import assert_equal, kill_while_keeping, stop_at, weight_files
from tests.fixtures.train_toys import Toy, make_toy


@pytest.fixture(scope="module")
def stopped(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped at step 11, with checkpoints of steps 10 and 11."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 11)
        with pytest.raises(Paused):
            toy.train(out)
    assert {path.name for path in (out / "checkpoints").iterdir()} == {
        "checkpoint-10",
        "checkpoint-11",
    }
    return out


@pytest.mark.parametrize(
    "name",
    [
        "adapter_model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
    ],
)
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damage_costs_steps_and_never_bits(
    toy: Toy, reference: Path, stopped: Path, tmp_path: Path, capfd: Any, name: str, damage: str
) -> None:
    out = shutil.copytree(stopped, tmp_path / "run")
    path = out / "checkpoints" / "checkpoint-11" / name
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-1])
    record = toy.train(out)
    assert record.sessions[-1].start_step == 10 and "broken-checkpoint-11" in capfd.readouterr().err
    assert_equal(out, reference)


def test_checkpoint_of_other_data_is_refused(toy: Toy, stopped: Path, tmp_path: Path) -> None:
    from tests.fixtures.train_toys import write_data

    out = shutil.copytree(stopped, tmp_path / "run")
    other = Toy(study=toy.study, cell=toy.cell, data=write_data(tmp_path / "data", train_rows=29))
    with pytest.raises(UserError, match="its data was"):
        other.train(out)
    assert (out / "checkpoints" / "checkpoint-11").is_dir()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"base_case__rank": 8, "base_case__alpha": 4}, "settings.rank"),
        ({"base_case__learning_rate": 2.0e-2}, "settings.learning_rate"),
        ({"base_case__seed": 8}, "settings.seed"),
        ({"base_case__batch": [2, 4]}, "settings.batch"),
        ({"base_case__dropout": 0.2}, "settings.dropout"),
        ({"base_case__compute_dtype": "bf16"}, "compute_dtype"),
        ({"base_case__budget": {"steps": 13}}, "planned_steps"),
        ({"base_case__threads": 2}, "settings.threads"),
    ],
)
def test_checkpoint_of_another_run_is_refused_by_field(
    toy_llama: Path, stopped: Path, tmp_path: Path, changes: dict, field: str
) -> None:
    """A new setting has a new run id and folder; with an old checkpoint in that folder it is refused."""
    other = make_toy(tmp_path / "toy", toy_llama, **changes)
    out = shutil.copytree(stopped, tmp_path / "run")
    with pytest.raises(UserError, match=f"its {field} was"):
        other.train(out)


def test_other_library_version_is_refused(
    toy: Toy, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loragrid.runtime import provenance

    now = provenance.versions()
    monkeypatch.setattr(provenance, "versions", lambda: now | {"peft": "0.0.1"})
    with pytest.raises(UserError, match=r'its peft version was .* and is now "0.0.1"'):
        toy.train(shutil.copytree(stopped, tmp_path / "run"))


def test_settings_that_change_no_weight_may_change(
    reference: Path, toy_llama: Path, stopped: Path, tmp_path: Path
) -> None:
    toy = make_toy(tmp_path / "toy", toy_llama, training__save_steps=2, training__keep_checkpoints=1)
    out = shutil.copytree(stopped, tmp_path / "run")
    assert toy.train(out).sessions[-1].start_step == 11
    assert_equal(out, reference)


def test_run_copied_to_another_machine_resumes_there(toy: Toy, reference: Path, stopped: Path, tmp_path: Path) -> None:
    """The run's folder is all it needs."""
    out = shutil.copytree(stopped, tmp_path / "elsewhere" / "run")
    assert toy.train(out).sessions[-1].start_step == 11
    assert_equal(out, reference)


def test_eight_bit_optimizer_resumes_bitwise(toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 128, because bitsandbytes keeps tensors below 4096 values in 32 bits."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: requirements-gpu.txt")
    toy = make_toy(tmp_path, toy_llama, base_case__optimizer="adamw_8bit", base_case__rank=128)
    toy.train(tmp_path / "reference")
    for step in (3, 8):
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            with pytest.raises(Paused):
                toy.train(tmp_path / "run")
    import torch

    state = torch.load(tmp_path / "run" / "checkpoints" / "checkpoint-8" / "optimizer.pt", weights_only=True)["state"]
    assert state[0]["__bnb_optimizer_quant_state__"]["state1"].dtype == torch.uint8
    toy.train(tmp_path / "run")
    assert_equal(tmp_path / "run", tmp_path / "reference")


@pytest.mark.long
def test_weights_along_a_run_survive_kills_and_are_those_of_an_undisturbed_run(toy_llama: Path, tmp_path: Path) -> None:
    """Killed before they are written, while they are, and right after: nothing is lost and nothing is half."""
    toy = make_toy(tmp_path, toy_llama, scoring__at=[0.25, 0.5, 1.0])
    assert toy.train(tmp_path / "reference").kept_at == (0.25, 0.5)
    expected = weight_files(tmp_path / "reference")
    assert {name.rpartition("/")[0] for name in expected} == {"adapter", "along/0.25/adapter", "along/0.5/adapter"}
    # The weights of a share are those of a run that stopped there.
    for moment in ("before", "during", "after"):
        for share in (0.25, 0.5):
            kill_while_keeping(toy, tmp_path / moment, share=share, moment=moment)
        assert (tmp_path / moment / "along" / "0.5" / "adapter").exists() == (moment == "after")
        record = toy.train(tmp_path / moment)
        assert record.kept_at == (0.25, 0.5) and [s.ended for s in record.sessions[:2]] == ["killed"] * 2
        assert_equal(tmp_path / moment, tmp_path / "reference")


def test_keeping_weights_along_a_run_changes_nothing_else(
    toy: Toy, reference: Path, toy_llama: Path, tmp_path: Path
) -> None:
    """It is not part of a run's identity."""
    kept = make_toy(tmp_path, toy_llama, scoring__at=[0.1, 0.5, 0.99])
    assert kept.cell.run == toy.cell.run and kept.train(tmp_path / "run").kept_at == (0.1, 0.5, 0.99)
    names = {name: content for name, content in weight_files(tmp_path / "run").items() if "along" not in name}
    assert names == weight_files(reference)
    # 0.99 of twelve updates are all twelve.
    end = weight_files(tmp_path / "run")["along/0.99/adapter/adapter_model.safetensors"]
    assert end == names["adapter/adapter_model.safetensors"]


def test_a_share_that_a_resumed_run_had_passed_is_named(
    stopped: Path, toy_llama: Path, tmp_path: Path, capfd: Any
) -> None:
    later = make_toy(tmp_path / "toy", toy_llama, scoring__at=[0.5, 1.0])
    assert later.train(shutil.copytree(stopped, tmp_path / "run")).kept_at == ()
    assert "no weights at 0.5 of the budget: the run had passed it" in capfd.readouterr().err


def test_a_run_that_starts_again_removes_weights_of_the_earlier_start(toy: Toy, stopped: Path, tmp_path: Path) -> None:
    out = shutil.copytree(stopped, tmp_path / "run")
    (out / "along" / "0.5" / "adapter").mkdir(parents=True)
    shutil.rmtree(out / "checkpoints")
    toy.train(out)
    assert not (out / "along").exists()
