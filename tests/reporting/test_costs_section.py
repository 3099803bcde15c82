"""The page's costs, against figures computed by hand."""

import dataclasses
import math
from pathlib import Path

import pytest

import compare
from loragrid.models.find_shape import find_shape
from loragrid.models.flops import training_per_token
from loragrid.models.trained_weights import Trainable
from loragrid.planning.forecast import expected_rate, workload_of
from loragrid.planning.gpu_cards import find_card, planned_device
from loragrid.planning.job_memory import recorded_layout
from loragrid.planning.measurements import Measurements, data_size
from loragrid.records.outcomes import collect
from loragrid.reporting.costs_section import (
    card_rows,
    cost_per_point,
    cost_table,
    operations_per_second,
    share_of_peak,
    total_cost,
)
from loragrid.reporting.page import Material, gather
from loragrid.study.batch_shares import written_layout
from loragrid.study.settings import Budget
from tests.fixtures import synthetic

T4 = {"kind": "cuda", "name": "Tesla T4", "vram_mib": 15095, "cuda": "12.8"}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("costs")
    study = synthetic.make_study(folder)
    synthetic.make_results(study, folder / "results")
    compare.compare(study=study, results=folder / "results", out=folder / "results/compare")
    return gather(study, folder / "results", collect(study, folder / "results"))


def with_records(material: Material, **changes) -> Material:
    outcomes = [
        dataclasses.replace(o, record=dataclasses.replace(o.record, **changes)) if o.record else o
        for o in material.outcomes
    ]
    return dataclasses.replace(material, outcomes=outcomes)


def first_run(material: Material):
    return next(o for o in material.outcomes if o.record)


@pytest.mark.parametrize(
    "name, card",
    [
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L400", None),
        ("NVIDIA L40", None),
        ("NVIDIA GeForce RTX 3090", "RTX-3090"),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("nvidia h200", "H200"),
        ("", None),
    ],
)
def test_a_card_is_known_by_its_whole_name(name: str, card: str | None) -> None:
    from loragrid.planning.gpu_cards import card_key

    assert card_key(name) == card and (find_card(name) is None) == (card is None)


def test_operations_per_second_by_hand(material: Material) -> None:
    """Six layers of a width of 64: 6·(64·64 + 2·64·32 + 64·64 + 3·64·192) weights and a head of 4096·64, four operations
    each; adapters of rank 16 on all seven maps, six each; attention over rows of 142 tokens."""
    run = first_run(material)
    layers = 6 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 192)
    adapters = 6 * 16 * (128 + 96 + 96 + 128 + 3 * 256)
    row = 320000 / 2260
    attention = 4 * 64 * 6 * row / 2
    head = 4096 * 64
    per_token = 4 * (layers + head) + 6 * adapters + 3 * attention
    steps = run.record.steps
    planned = 120_000  # the study's budget, tokens
    assert material.study.base_case.budget == Budget(tokens=planned)
    planned_steps = round(planned / (row * 8))
    measured = (1 + material.study.base_case.evaluations) * material.study.heldout.rows * row
    whole = round(planned_steps * 8 * row) * per_token + measured * (2 * (layers + head) + attention)
    by_hand = whole * min(1, steps / planned_steps) / run.record.train_seconds
    assert operations_per_second(material, run) == pytest.approx(by_hand, rel=1e-9)


def test_the_plan_says_the_same_of_a_finished_run(material: Material) -> None:
    """Both figures use one count, which on a GPU includes recomputed activations."""
    material = with_records(material, device=T4)
    run = first_run(material)
    study, cell = material.study, run.cell
    shape, size = find_shape(study.models[cell.model]), data_size(study, cell, material.results)
    layout = written_layout(cell.settings, "cuda")
    workloads = {cell.run: workload_of(study, cell, shape, size, layout=layout)}
    measured, device = Measurements({cell.run: run.record}, {}), planned_device(study.plan, detect=False)
    rate = expected_rate(cell, (cell,), workloads, measured, device)
    assert operations_per_second(material, run) == pytest.approx(rate.tflops * 1e12)
    trainable = Trainable.of(cell.settings)
    parts = training_per_token(shape, trainable, row_tokens=size.row_tokens, checkpointing=True)
    assert workloads[cell.run].flops["recomputation"] == pytest.approx(
        workloads[cell.run].tokens * parts["recomputation"]
    )


def test_share_of_the_cards_peak() -> None:
    assert share_of_peak(6.5e12, T4) == pytest.approx(0.1)
    assert share_of_peak(6.5e12, T4 | {"name": "NVIDIA L400"}) is None
    assert share_of_peak(6.5e12, synthetic.DEVICE) is None


def test_what_the_runs_would_take_on_other_cards(material: Material) -> None:
    """The card of the published rate takes the operations of all runs at that rate, or the time to start them."""
    rows = {row["card"]: row for row in card_rows(material)}
    assert rows["T4"]["source"] == "measured elsewhere" and rows["P100"]["source"] == "assumed"
    assert [row["seconds"] for row in card_rows(material)] == sorted(row["seconds"] for row in card_rows(material))
    study, operations = material.study, 0.0
    for run in (outcome for outcome in material.outcomes if outcome.record):
        shape, data = find_shape(study.models[run.model]), data_size(study, run.cell, material.results)
        operations += workload_of(
            study, run.cell, shape, data, layout=recorded_layout(run.record, run.cell.settings)
        ).total_flops
    assert rows["T4"]["seconds"] >= 0.99 * operations / (find_card("Tesla T4").training_tflops * 1e12)
    nothing = dataclasses.replace(material, outcomes=[])
    assert card_rows(nothing) == []


def test_only_a_proved_gain_has_a_price(material: Material) -> None:
    trades = {run: row for row in material.compared.summary["trade_offs"] for run in row["runs"].split()}
    run = next(o for o in material.outcomes if o.record and trades[o.subject]["gain"] > 0)
    gain = trades[run.subject]["gain"]
    # One seed proves nothing about the setting.
    assert trades[run.subject]["gain_verdict"] == "adapters differ" and cost_per_point(material, run) is None
    trades[run.subject]["gain_verdict"] = "better"
    trades[run.subject] |= {"gain_low": 0.5 * gain, "gain_high": 2 * gain}
    price = run.record.train_seconds / (100 * gain)
    assert cost_per_point(material, run) == pytest.approx((price, price / 2, price * 2))
    trades[run.subject]["gain_low"] = -0.01
    assert cost_per_point(material, run)[2] == math.inf
    trades[run.subject]["gain_verdict"] = "can't tell"
    assert cost_per_point(material, run) is None


def test_gpu_hours_and_energy_where_there_are_any(material: Material) -> None:
    headings = cost_table(material)["headings"]
    assert "GPU-hours of training" not in headings and "Energy" not in headings
    assert "Energy was not metered" in total_cost(material)
    runs = len(material.study.cells)
    gpu = with_records(material, device=T4, train_seconds=1800.0, energy_joules=36_000.0, peak_vram_mib=6144.0)
    table = cost_table(gpu)
    cells = dict(zip(table["headings"], table["rows"][0]["cells"]))
    assert cells["GPU-hours of training"] == ("0.500", 0.5)
    assert cells["Energy"] == ("10.0 Wh", 36_000.0) and cells["Peak memory"] == ("6.0 GiB GPU", 6144.0)
    assert cells["Of the card’s peak"].sort < 0.01
    assert f"{runs} of {runs} runs: {10 * runs}" in total_cost(gpu)
    assert f"{runs * 0.5:.2f} GPU-hours" in total_cost(gpu)


def test_a_model_of_unknown_shape_has_no_operations(material: Material) -> None:
    run = first_run(material)
    Path(material.study.models[run.model].path, "config.json").write_text('{"model_type": "new"}')
    assert operations_per_second(material, run) is None
