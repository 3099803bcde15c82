"""How an update's rows run: folded into fewer passes with the same result, and kept when a run is resumed."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Paused, UserError
from loragrid.models.find_shape import find_shape
from loragrid.planning.job_memory import MEMORY_MARGIN, gpu_layout, gpu_training_setup, with_layout
from loragrid.planning.memory_model import training_memory
from loragrid.study.batch_shares import StepLayout, cpu_layout
from loragrid.study.study_file import load_study
from loragrid.training.kill_and_resume import certify_resume
from tests.fixtures.run_faults import stop_at, weight_files
from tests.fixtures.train_toys import Toy, make_toy, rows_of
from tools.certify import import_training_libraries

FOLDED = {"training__fold_batches": True}


def losses(out: Path) -> list[float]:
    return [float(row["loss"]) for row in rows_of(out)]


def test_a_folded_run_equals_one_with_accumulation(toy_llama: Path, tmp_path: Path) -> None:
    """2 x 2 rows as 4 in one pass: rows of any length and part without loss, two passes over the data, in float32."""
    changes = {"base_case__dropout": 0.0, "base_case__packing": False}
    toys = [make_toy(tmp_path / name, toy_llama, **changes, **more) for name, more in (("a", {}), ("b", FOLDED))]
    apart, folded = (toy.train(tmp_path / name / "run") for toy, name in zip(toys, "ab", strict=True))
    assert (apart.rows_per_pass, folded.rows_per_pass, folded.checkpointing) == (2, 4, False)
    assert losses(tmp_path / "a/run") == pytest.approx(losses(tmp_path / "b/run"), rel=1e-5)
    assert len(losses(tmp_path / "a/run")) > 12
    for name in ("run", "steps", "samples", "tokens", "loss_tokens"):
        assert getattr(apart, name) == getattr(folded, name), name
    # Another order of sums: equal up to rounding, and not the same bits.
    assert apart.weights_sha256 != folded.weights_sha256


def test_a_folded_run_killed_three_times_equals_the_undisturbed_one(toy_llama: Path, tmp_path: Path) -> None:
    """With dropout, bit for bit."""
    toy = make_toy(tmp_path, toy_llama, training__save_steps=3, **FOLDED)
    import_training_libraries()
    found = certify_resume(toy.train, work=tmp_path, kills=3, seed=367, save_steps=3)
    assert found["holds"] and found["kills"] == 3 and all(found["equal"].values())
    assert json.loads((tmp_path / "reference" / "record.json").read_text())["rows_per_pass"] == 4


def stopped(toy: Toy, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(Paused):
            toy.train(out)


def test_a_resumed_run_keeps_the_layout_of_its_checkpoint(toy_llama: Path, tmp_path: Path) -> None:
    """As on another card, which would choose another one; here a CPU that folds where the first session did not."""
    apart, folded = (make_toy(tmp_path / name, toy_llama, **more) for name, more in (("a", {}), ("b", FOLDED)))
    stopped(apart, tmp_path / "run")
    record = folded.train(tmp_path / "run")
    assert record.rows_per_pass == 2 and len(record.sessions) == 2
    apart.train(tmp_path / "whole")
    assert weight_files(tmp_path / "run") == weight_files(tmp_path / "whole")
    # A finished run whose record Snakemake deleted is not trained again either.
    (tmp_path / "run" / "record.json").unlink()
    assert folded.train(tmp_path / "run") == record


def test_a_folded_checkpoint_is_refused_where_folding_is_off(toy_llama: Path, tmp_path: Path) -> None:
    apart, folded = (make_toy(tmp_path / name, toy_llama, **more) for name, more in (("a", {}), ("b", FOLDED)))
    stopped(folded, tmp_path / "run")
    with pytest.raises(UserError, match=r"its rows per pass \(training.fold_batches\) was 4 and is now null"):
        apart.train(tmp_path / "run")


def test_rows_that_would_be_padded_are_not_folded(
    toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loragrid.training.backends.trl.enable_padding_free", lambda *_, **__: None)
    toy = make_toy(tmp_path, toy_llama, base_case__budget={"steps": 2}, base_case__evaluations=1, **FOLDED)
    assert toy.train(tmp_path / "run").rows_per_pass == 2


@pytest.mark.parametrize(
    ("batch", "row_tokens", "rows", "passes"),
    [((2, 4), 105, 8, 1), ((4, 8), 105, 16, 2), ((2, 4), 300, 4, 2), ((2, 4), 1500, 2, 4), ((3, 2), 9, 6, 1)],
)
def test_a_cpu_folds_until_a_pass_is_large(batch: tuple, row_tokens: float, rows: int, passes: int) -> None:
    settings = replace(load_study("demo").base_case, batch=batch)
    assert cpu_layout(settings, row_tokens=row_tokens, fold=True) == StepLayout(rows, passes, False)
    assert cpu_layout(settings, row_tokens=row_tokens, fold=False) == StepLayout(*batch, False)


@pytest.mark.parametrize(
    ("model", "memory_mib", "expected"),
    [
        # A T4 has room for the activations of Gemma's written batch, and for eight rows of Llama without them.
        ("llama-1b", 14_913, StepLayout(8, 1, True)),
        ("gemma-270m", 14_913, StepLayout(2, 4, False)),
        ("llama-1b", 81_559, StepLayout(8, 1, False)),
        ("llama-1b", 3_000, StepLayout(2, 4, True)),
        ("llama-1b", None, StepLayout(2, 4, True)),
    ],
)
def test_a_gpu_keeps_activations_and_folds_as_memory_allows(
    model: str, memory_mib: int | None, expected: StepLayout
) -> None:
    """The layout's predicted memory with the margin of a request fits the card; it is the same at every call."""
    study = load_study("t4")
    shape, setup = find_shape(study.models[model]), gpu_training_setup(study.base_case, bf16=False)
    chosen: dict[str, Any] = {"accumulation": 4, "memory_mib": memory_mib}
    assert gpu_layout(shape, setup, fold=True, **chosen) == expected
    alone = gpu_layout(shape, setup, fold=False, **chosen)
    assert alone == dataclasses.replace(expected, per_device=2, accumulation=4)
    if memory_mib is not None and memory_mib > 3_000:
        assert MEMORY_MARGIN * training_memory(shape, with_layout(setup, expected)).total_mib <= memory_mib
