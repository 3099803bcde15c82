"""What a cause may rest on: the runs that differ only in the learning rate, and how far an adapter moved."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from loragrid.comparing.diagnosing.run_evidence import adapter_distance, gather_evidence
from loragrid.records.outcomes import collect
from tests.fixtures import synthetic


def test_neighbours_differ_in_the_learning_rate_only(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", items=10)
    found = gather_evidence(collect(study, tmp_path / "results"), tmp_path / "results")
    rates = {run: [rate for rate, *_ in e.neighbours] for run, e in found.items()}
    case = next(c.run for c in study.cells if not c.departs)
    assert rates[case] == [0.001, 0.1]
    assert rates[next(c.run for c in study.cells if c.settings.rank == 64)] == []


def test_a_run_that_diverged_is_nobodys_neighbour(tmp_path: Path) -> None:
    """A diverged run has no final loss; one that its record holds from before would not count either."""
    study = synthetic.make_study(tmp_path)
    high = next(c.run for c in study.cells if c.settings.learning_rate == 0.1)
    synthetic.make_results(study, tmp_path / "results", items=10, faults={high: "diverged"})
    case = next(c.run for c in study.cells if not c.departs)
    record = tmp_path / "results" / "train" / high / "record.json"
    for loss in (None, 2.6):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"final_heldout_loss": loss}))
        found = gather_evidence(collect(study, tmp_path / "results"), tmp_path / "results")
        assert [rate for rate, *_ in found[case].neighbours] == [0.001]


def test_a_winner_of_a_search_is_no_neighbour_by_its_rate_alone(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", items=10)
    outcomes = collect(study, tmp_path / "results")
    low = next(o for o in outcomes if o.cell and o.cell.settings.learning_rate == 0.001)
    identity = low.cell.identity | {"warmup": {"steps": 99}}
    cell = dataclasses.replace(low.cell, identity=identity, departs={"search": "1"})
    others = [o for o in outcomes if o is not low]
    found = gather_evidence([*others, dataclasses.replace(low, cell=cell)], tmp_path / "results")
    case = next(c.run for c in study.cells if not c.departs)
    assert [rate for rate, *_ in found[case].neighbours] == [0.1] and found[low.subject].neighbours == ()


def test_the_margin_comes_from_what_other_runs_of_the_base_won(tmp_path: Path) -> None:
    """Every run's untrained loss is 2.6; the lowest final loss of its base and data is the other end."""
    study = synthetic.make_study(tmp_path)
    high = next(c.run for c in study.cells if c.settings.learning_rate == 0.1)
    synthetic.make_results(study, tmp_path / "results", items=10, faults={high: "diverged"})
    found = gather_evidence(collect(study, tmp_path / "results"), tmp_path / "results")
    for evidence in found.values():
        alike = [o for o in found.values() if o.outcome.base == evidence.outcome.base]
        losses = [o.outcome.record.final_heldout_loss for o in alike]
        lowest = min(loss for loss in losses if loss is not None)
        assert evidence.lowest_loss == lowest and evidence.seed_sd is None
        assert evidence.margin.to_win == pytest.approx(2.6 - lowest)
    # Its own path has no end, but others show what there was to win.
    assert found[high].margin.to_win == pytest.approx(1.5)


def test_the_spread_of_the_loss_between_seeds_is_pooled_and_no_broken_setting_widens_it(tmp_path: Path) -> None:
    def effect(cell):
        if cell is None:
            return synthetic.ability(None)
        broken = cell.settings.learning_rate == 0.1
        return synthetic.ability(cell) | {"loss": 1.1 + (1.0 if broken else 0.01) * (cell.settings.seed - 1)}

    study = synthetic.make_study(tmp_path, grid={"axes": {"seed": [1, 2, 3], "model": None}})
    synthetic.make_results(study, tmp_path / "results", items=10, effect=effect, losses=False)
    found = gather_evidence(collect(study, tmp_path / "results"), tmp_path / "results")
    # The seeds' losses are 1.1, 1.11 and 1.12: a standard deviation of 0.01.
    assert {round(evidence.seed_sd, 6) for evidence in found.values()} == {0.01}


def test_distance_is_the_norm_of_the_product(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 10)).astype("float32"), rng.normal(size=(8, 4)).astype("float32")
    name = "base_model.model.layers.0.q_proj.lora_{}.weight"
    save_file({name.format("A"): a, name.format("B"): b}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    assert adapter_distance(tmp_path) == pytest.approx(2 * np.linalg.norm(b @ a), rel=1e-5)
    assert adapter_distance(tmp_path / "nowhere") is None
