"""Trials on a toy model: they train as the grid does, do not affect each other, and fail alone."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from loragrid.data.training_data import rows_sha256
from loragrid.runtime.atomic_files import sha256_json
from loragrid.runtime.session import SessionClock, StopSignals
from loragrid.searching.trials import TrialResult, TrialRunner
from loragrid.study.search.search_point import at_point
from loragrid.study.sections import Budget
from tests.fixtures.train_toys import Toy, rows_of

POINT = {"learning_rate": 0.02, "warmup": {"steps": 1}, "weight_decay": 0.0, "batch": [2, 1], "rank": 2}
OTHER = {"learning_rate": 0.5, "warmup": {"steps": 0}, "weight_decay": 0.01, "batch": [1, 2], "rank": 4}


def never(part: int, loss: float) -> bool:
    return False


def always(part: int, loss: float) -> bool:
    return True


def run(runner: TrialRunner, point: dict, folder: Path, should_prune: Any = never) -> TrialResult:
    folder.mkdir(exist_ok=True)
    return runner.run(
        point, name="trial", folder=folder, stop=StopSignals(), clock=SessionClock(None), should_prune=should_prune
    )


def kept(result: TrialResult) -> dict[str, Any]:
    return {key: value for key, value in vars(result).items() if key != "seconds"}


def write_rows(data: Path, folder: Path, rows: Sequence[int]) -> Path:
    """A copy of a data set that has only these rows for training; returns `folder`."""
    shutil.copytree(data, folder)
    table = pq.read_table(folder / "train.parquet")
    table = table.filter(pc.is_in(table["row"], pa.array(rows, pa.int64())))
    pq.write_table(table, folder / "train.parquet")
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"fingerprint": rows_sha256(table)}))
    return folder


def adapter_sums(monkeypatch: pytest.MonkeyPatch, runner: TrialRunner) -> list[str]:
    """Digests of the adapters that the runner removes, in this order."""
    sums, release = [], runner.backend.release

    def spied(base: Any, model: Any) -> Any:
        weights = {n: p.detach().numpy().tobytes().hex() for n, p in model.named_parameters() if p.requires_grad}
        sums.append(sha256_json(weights))
        return release(base, model)

    monkeypatch.setattr(runner.backend, "release", spied)
    return sums


def test_a_trial_after_others_is_bitwise_the_same_as_alone(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, after = TrialRunner(toy.study, toy.data), TrialRunner(toy.study, toy.data)
    sums_alone, sums_after = adapter_sums(monkeypatch, alone), adapter_sums(monkeypatch, after)
    single = run(alone, POINT, tmp_path / "alone")
    base_before = None
    for number, (point, should_prune) in enumerate([(OTHER, never), (OTHER, always), (POINT, never)]):
        last = run(after, point, tmp_path / f"{number}", should_prune)
        weights = sha256_json([p.detach().numpy().tobytes().hex() for p in after._base.model.parameters()])
        base_before = base_before or weights
        assert weights == base_before, "a trial changed the base"
    assert kept(last) == kept(single) and single.outcome == "complete"
    assert sums_after[-1] == sums_alone[0] != sums_after[0]
    assert [row["loss"] for row in rows_of(tmp_path / "2")] == [row["loss"] for row in rows_of(tmp_path / "alone")]


def test_a_trial_trains_as_the_grid_does(toy: Toy, tmp_path: Path) -> None:
    """A run of the train stage with the settings, length and rows of a trial has the same losses, bit for bit."""
    runner = TrialRunner(toy.study, toy.data)
    trial = run(runner, POINT, tmp_path / "trial")
    study = at_point(toy.study, POINT, budget=Budget(steps=trial.planned_steps))
    data = write_rows(toy.data, tmp_path / "data", runner.data.train["row"])
    Toy(study=study, cell=study.cells[0], data=data).train(tmp_path / "run")
    losses = [
        [
            (row["step"], row["loss"], row["tokens"], row["learning_rate"])
            for row in rows_of(tmp_path / name)
            if row["kind"] == "train"
        ]
        for name in ("trial", "run")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == trial.planned_steps
    assert {path.name for path in (tmp_path / "trial").iterdir()} == {"losses.csv"}, "a trial keeps no checkpoint"


def test_trials_see_equal_tokens_whatever_their_batch(toy: Toy, tmp_path: Path) -> None:
    runner = TrialRunner(toy.study, toy.data)
    small, large = (run(runner, POINT | {"batch": [b, a]}, tmp_path / f"{b}{a}") for b, a in ((1, 1), (2, 2)))
    assert small.planned_steps == pytest.approx(4 * large.planned_steps, abs=3)
    for result in (small, large):
        assert [part for part, *_ in result.curve] == [1, 2, 3]
        assert result.tokens == pytest.approx(600, rel=0.25)
    for one, other in zip(small.curve, large.curve):
        assert one[2] == pytest.approx(other[2], rel=0.35)


def test_a_trial_is_pruned_at_once(toy: Toy, tmp_path: Path) -> None:
    result = run(TrialRunner(toy.study, toy.data), POINT, tmp_path, lambda part, loss: part == 2)
    assert result.outcome == "pruned" and result.curve[-1][0] == 2
    assert result.steps == result.curve[-1][1] < result.planned_steps
    assert rows_of(tmp_path)[-1]["kind"] == "heldout"


def test_a_trial_that_diverges_or_runs_out_of_memory_does_not_affect_others(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    runner = TrialRunner(toy.study, toy.data)
    before = run(runner, POINT, tmp_path / "before")
    diverged = run(runner, OTHER | {"learning_rate": 1e30}, tmp_path / "diverged")
    assert diverged.outcome == "diverged" and "became" in diverged.reason
    real = runner.backend.trainer

    def hungry(*arguments: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(runner.backend, "trainer", hungry)
    hungered = run(runner, POINT, tmp_path / "memory")
    assert hungered.outcome == "out_of_memory" and hungered.loss is None and hungered.planned_steps is None
    monkeypatch.setattr(runner.backend, "trainer", lambda *a, **n: [][0])
    assert run(runner, POINT, tmp_path / "bug").reason == "IndexError: list index out of range"
    monkeypatch.setattr(runner.backend, "trainer", real)
    assert kept(run(runner, POINT, tmp_path / "after")) == kept(before)
