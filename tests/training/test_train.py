"""The train stage on a toy model: its rows, its measurements and its files."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.records.losses import COLUMNS
from loragrid.records.record import RunRecord, read_record
from loragrid.study.budget import plan_steps
from loragrid.study.sections import Budget
from tests.fixtures.train_toys import Toy, make_toy, rows_of


def heldout_by_hand(model: Any, data: Path) -> float:
    """Mean negative log-likelihood over all loss tokens of the held-out rows, one unpadded row at a time."""
    import pyarrow.parquet as pq
    import torch

    total, count = 0.0, 0
    for row in pq.read_table(data / "heldout.parquet").to_pylist():
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        with torch.no_grad():
            scores = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
        target = labels[1:]
        picked = scores[torch.arange(len(target)), target.clamp(min=0)][target != -100]
        total, count = total - float(picked.sum()), count + len(picked)
    return total / count


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(steps=7), 7),
        (Budget(tokens=1000), 10),  # 25 tokens a row, 4 rows an update
        (Budget(tokens=1), 1),
        (Budget(epochs=1), 3),  # 10 rows: 4, 4, 2
        (Budget(epochs=2.5), 8),
        (Budget(epochs=0.01), 1),
    ],
)
def test_budget_in_updates(budget: Budget, expected: int) -> None:
    assert plan_steps(budget, lengths_tokens=[20, 30] * 5, per_device=2, accumulation=2) == expected


def test_leaves_the_documented_files_and_no_others(reference: Path) -> None:
    names = {path.name for path in reference.iterdir()}
    assert names == {
        "adapter",
        "losses.csv",
        "heldout_losses.json",
        "history.jsonl",
        "finished.json",
        "record.json",
        "sealed.json",
        "trainer.lock",
    }
    assert {path.name for path in (reference / "adapter").iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    config = json.loads((reference / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"]) and config["r"] == 4
    assert (
        reference / "adapter" / "adapter_model.safetensors"
    ).stat().st_mode & 0o044  # readable by others, as the rest


def test_loss_rows(reference: Path) -> None:
    rows = rows_of(reference)
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["step"]) for row in rows if row["kind"] == "heldout"] == [0, 4, 8, 12]
    train = [row for row in rows if row["kind"] == "train"]
    assert [int(row["step"]) for row in train] == list(range(1, 13))
    # Warm-up over 2 updates from 0, then linear to 0.
    rates = [float(row["learning_rate"]) for row in train]
    assert rates[:3] == pytest.approx([0.0, 0.005, 0.01]) and rates[-1] == pytest.approx(0.001)
    assert all(math.isfinite(float(row["loss"])) and float(row["grad_norm"]) > 0 for row in train)
    # 30 rows in updates of 4: the eighth ends the pass over the data with 2.
    assert [int(row["samples"]) for row in train] == [4, 8, 12, 16, 20, 24, 28, 30, 34, 38, 42, 46]


def test_tokens_are_those_of_the_rows(reference: Path, toy: Toy) -> None:
    """After one pass over the data; the first token of a row carries no loss."""
    import pyarrow.parquet as pq

    table = pq.read_table(toy.data / "train.parquet").to_pylist()
    row = next(row for row in rows_of(reference) if row["kind"] == "train" and row["samples"] == "30")
    assert int(row["tokens"]) == sum(len(r["input_ids"]) for r in table)
    assert int(row["loss_tokens"]) == sum(label != -100 for r in table for label in r["labels"][1:])


def test_adapter_loads_and_the_heldout_loss_is_the_true_one(reference: Path, toy: Toy, toy_llama: Path) -> None:
    """Neither padding nor batches change it. Before the first update it is the base's."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(toy_llama).eval()
    rows = [row for row in rows_of(reference) if row["kind"] == "heldout"]
    assert float(rows[0]["loss"]) == pytest.approx(heldout_by_hand(base, toy.data), rel=1e-6)
    tuned = PeftModel.from_pretrained(base, reference / "adapter").eval()
    assert float(rows[-1]["loss"]) == pytest.approx(heldout_by_hand(tuned, toy.data), rel=1e-6)
    assert rows[-1]["loss"] != rows[0]["loss"]


def test_record(reference: Path, toy: Toy) -> None:
    record = read_record(reference / "record.json", RunRecord)
    rows = rows_of(reference)
    card = json.loads((toy.data / "card.json").read_text())
    assert (record.status, record.reason, record.run, record.study) == (
        "finished",
        None,
        toy.cell.run,
        "toy",
    )
    assert (record.steps, record.planned_steps, record.samples) == (12, 12, 46)
    assert record.settings == toy.cell.identity and record.backend == "trl"
    assert (record.data_fingerprint, record.train_rows, record.heldout_rows) == (
        card["fingerprint"],
        30,
        10,
    )
    assert record.tokens == int(rows[-1]["tokens"]) and record.loss_tokens == int(rows[-1]["loss_tokens"])
    assert record.padding_share == 0.0 and record.tokens_per_second > 0 and record.peak_rss_mib > 100
    assert record.peak_vram_mib is None and record.energy_joules is None
    assert record.first_heldout_loss == float(rows[0]["loss"])
    assert record.final_heldout_loss == float(rows[-1]["loss"])
    assert record.final_train_loss == float([row for row in rows if row["kind"] == "train"][-1]["loss"])
    # Two layers of seven linear modules between 32, 16 and 64 wide, at rank 4.
    assert record.trainable_parameters == 2 * 4 * (64 + 48 + 48 + 64 + 3 * 96)
    assert [(session.start_step, session.end_step, session.ended) for session in record.sessions] == [
        (0, 12, "finished")
    ]
    assert len(record.base_sha256) == len(record.weights_sha256) == 64 and record.versions["trl"]


def test_same_seed_same_bytes_other_seed_other_bytes(
    toy: Toy, reference: Path, toy_llama: Path, tmp_path: Path
) -> None:
    first = (reference / "adapter" / "adapter_model.safetensors").read_bytes()
    toy.train(tmp_path / "again")
    assert (tmp_path / "again" / "adapter" / "adapter_model.safetensors").read_bytes() == first
    # Saving and evaluating more often, in other places, draws no random number and changes no bit.
    often = make_toy(tmp_path / "often", toy_llama, training__save_steps=1, base_case__evaluations=12)
    often.train(tmp_path / "often" / "run")
    assert (tmp_path / "often" / "run" / "adapter" / "adapter_model.safetensors").read_bytes() == first
    other = make_toy(tmp_path / "other", toy_llama, base_case__seed=8)
    other.train(tmp_path / "other" / "run")
    assert (tmp_path / "other" / "run" / "adapter" / "adapter_model.safetensors").read_bytes() != first


def test_finished_run_is_left_alone(toy: Toy, reference: Path) -> None:
    """Not even a time stamp changes."""
    before = {path: path.stat().st_mtime_ns for path in reference.rglob("*")}
    assert toy.train(reference) == read_record(reference / "record.json", RunRecord)
    assert {path: path.stat().st_mtime_ns for path in reference.rglob("*")} == before


def test_record_of_another_run_is_refused(reference: Path, toy_llama: Path, tmp_path: Path) -> None:
    other = make_toy(tmp_path, toy_llama, base_case__rank=2)
    with pytest.raises(UserError, match="a folder of its own"):
        other.train(reference)


def test_gemma_trains(toy_gemma: Path, tmp_path: Path) -> None:
    record = make_toy(tmp_path, toy_gemma, base_case__budget={"steps": 3}).train(tmp_path / "run")
    assert record.status == "finished" and record.steps == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"base_case__optimizer": "sgd"},
        {"base_case__optimizer": "adafactor"},
        {"base_case__schedule": "cosine", "base_case__warmup": {"steps": 0}, "base_case__max_grad_norm": 0},
        {
            "base_case__compute_dtype": "bf16",
            "base_case__target_modules": ["q_proj", "v_proj"],
            "base_case__alpha": 32,
        },
    ],
)
def test_other_settings_train_too(toy_llama: Path, tmp_path: Path, changes: dict) -> None:
    toy = make_toy(tmp_path, toy_llama, base_case__budget={"steps": 2}, **changes)
    assert toy.train(tmp_path / "run").status == "finished"


@pytest.mark.parametrize("padding_free", [True, False])
def test_packing_does_not_let_rows_see_each_other(
    toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding_free: bool
) -> None:
    """The loss of the first update, before anything is learned, equals that of the same rows one by one.

    An epoch of one update sees all rows: 30, or the 18 into which they are packed.
    """
    if not padding_free:  # as with a model that does not support it: transformers' mask keeps them apart
        monkeypatch.setattr("loragrid.training.backends.trl.enable_padding_free", lambda *_, **__: None)
    whole = {"base_case__budget": {"steps": 1}, "base_case__dropout": 0.0}
    packed = make_toy(tmp_path / "a", toy_llama, **whole, base_case__packing=True, base_case__batch=[1, 18])
    single = make_toy(tmp_path / "b", toy_llama, **whole, base_case__batch=[1, 30])
    records = [toy.train(tmp_path / name) for toy, name in ((packed, "packed"), (single, "single"))]
    assert records[0].final_train_loss == pytest.approx(records[1].final_train_loss, rel=1e-5)
    assert [(r.samples, r.tokens, r.loss_tokens) for r in records[:1]] == [
        (records[1].samples, records[1].tokens, records[1].loss_tokens)
    ]


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda data: (data / "card.json").unlink(), "card.json"),
        (lambda data: (data / "train.parquet").unlink(), "train.parquet"),
        (lambda data: (data / "heldout.parquet").write_bytes(b"PAR1"), "heldout.parquet"),
        (
            lambda data: (data / "train.parquet").write_bytes((data / "heldout.parquet").read_bytes()),
            "fingerprint",
        ),
    ],
)
def test_data_that_are_not_those_of_the_card(toy_llama: Path, tmp_path: Path, break_it: Any, named: str) -> None:
    toy = make_toy(tmp_path, toy_llama)
    break_it(toy.data)
    with pytest.raises(UserError, match=named):
        toy.train(tmp_path / "run")
    assert not (tmp_path / "run").exists()
