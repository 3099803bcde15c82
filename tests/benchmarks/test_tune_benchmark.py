"""The search's benchmark in its smallest form: what it counts is right, and the peer trains the same trials."""

from pathlib import Path

import pytest

from benchmarks import tune
from benchmarks.tune_peer import Peer
from tests.fixtures.search_toys import MODEL_TUNE as TUNE
from tests.fixtures.train_toys import make_toy


@pytest.mark.long
def test_pruning_and_pace_are_measured(tmp_path: Path, toy_llama: Path) -> None:
    toy = make_toy(tmp_path, toy_llama, tune=TUNE | {"trials": 4}, base_case__dropout=0.0)

    found = tune.measure_pruning(toy.study, toy.data, tmp_path / "pruning", seeds=1)
    (row,) = found["searches"]
    assert found["steps_saved_mean"] == row["steps_saved"] and sum(row["outcomes"].values()) == 4
    assert row["gap"] >= 0 and row["noise"] > 0 and row["same_winner"] == (row["gap"] == 0)

    # That the peer is measured as often as the search, pruned trials too, measure_pace itself demands.
    pace = tune.measure_pace(toy.study, toy.data, tmp_path / "pace", searches=1)
    assert set(pace["plain_script_to_ours"]["seconds"]) == {"reused", "reloaded"}
    assert [len(taken) for taken in pace["searches"][0]["seconds_cpu_and_garbage"].values()] == [
        5,
        4,
        4,
    ]  # loading, and four trials
    costs = [trial for way in pace["searches"][0]["seconds_cpu_and_garbage"].values() for trial in way]
    assert all(0 <= garbage <= cpu for _, cpu, garbage in costs)
    assert (
        pace["searches"][0]["seconds_cpu_and_garbage"]["plain"][-1][2] > 0
    )  # accelerate collects at the end of training
    peer = Peer(toy.study, toy.data, tmp_path)
    assert peer.run({}, measurements=1).evaluations == 1 and peer.run({}).evaluations == TUNE["evaluations"]
    # SFTTrainer's own evaluation averages over batches and not over tokens: near, not equal.
    assert pace["largest_loss_difference_to_plain"] == pytest.approx(0, abs=0.05)
