"""Runs made to have each fault, and healthy ones: each fault is named, and no fault is named where there is none."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import compare
from loragrid.comparing.causes import diagnose, unmade
from loragrid.comparing.run_evidence import LossPath, RunEvidence, adapter_distance, gather_evidence
from loragrid.comparing.study_checks import caveats, chance_level, leaks, not_comparable, untrained_loss, vocabulary
from loragrid.records.outcomes import collect
from loragrid.study.sections import ModelEntry
from tests.fixtures import synthetic

TASKS = {"running_plan": "share", "world_facts": "share"}
ANSWERS = {
    "running_plan": {"stopped": 0.98, "repetition": 0.1, "special_tokens": 0.0, "distinct_2": 0.4, "new_tokens": 90.0}
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("made")
    study = synthetic.make_study(folder)
    synthetic.make_results(study, folder / "results", items=10)
    return next(o for o in collect(study, folder / "results") if o.kind == "run")


def path(heldout, *, train_end: float = 1.0, noise: float = 0.05, jumps: int = 0, seed: int = 0) -> LossPath:
    """A path of 100 updates with the given held-out losses at even distances."""
    rng = np.random.default_rng(seed)
    steps = np.arange(1, 101)
    heldout = np.array(heldout, float)
    norms = np.abs(rng.normal(1, 0.2, 100))
    norms[:jumps] = 100
    train = train_end + (heldout[0] - train_end) * np.exp(-5 * steps / 100) + noise * rng.standard_normal(100)
    return LossPath(steps * 1000.0, train, norms, np.linspace(0, 100_000, len(heldout)), heldout)


HEALTHY = 1.1 + 1.5 * np.exp(-5 * np.linspace(0, 1, 7))


def causes(outcome, *, rows: list[dict] | None = None, **changes) -> set[str]:
    final = changes.pop("final", None)
    evidence = RunEvidence(outcome, path(HEALTHY), 0.5, ANSWERS, ANSWERS, 2.0)
    evidence = dataclasses.replace(evidence, **changes)
    if final is None and evidence.path is not None:
        final = float(evidence.path.heldout[-1])
    record = dataclasses.replace(outcome.record, final_heldout_loss=final)
    evidence = dataclasses.replace(evidence, outcome=dataclasses.replace(outcome, record=record))
    found = diagnose(evidence, rows or [], units=TASKS, target="running_plan")
    assert all(cause.evidence and cause.threshold for cause in found)
    return {cause.cause for cause in found}


def row(task: str, group: str, verdict: str, difference: float) -> dict:
    return {"task": task, "group": group, "verdict": verdict, "difference": difference, "detectable": 0.2}


def answers(**changes) -> dict:
    return {"running_plan": ANSWERS["running_plan"] | changes}


@pytest.mark.parametrize("seed", range(20))
def test_healthy_runs_have_no_fault(outcome, seed: int) -> None:
    rng = np.random.default_rng(seed)
    heldout = HEALTHY + 0.003 * rng.standard_normal(7)
    rows = [row("running_plan", "target", "better", 0.5), row("world_facts", "retention", "can't tell", -0.01)]
    neighbours = [(0.001, 1.6, 1.0), (0.1, 1.5, 8.0)]
    assert causes(outcome, path=path(heldout, seed=seed), rows=rows, neighbours=neighbours) == set()


FALLING = np.linspace(2.6, 1.4, 7)
TURNED = np.array([2.6, 1.9, 1.5, 1.4, 1.5, 1.7, 1.9])


@pytest.mark.parametrize(
    "cause, changes",
    [
        ("diverged", {"path": path(np.linspace(2.6, 4.0, 7))}),
        ("diverged", {"path": path(HEALTHY, jumps=8)}),
        ("rate_too_high", {"neighbours": [(0.001, 0.9, 1.0)]}),
        ("rate_too_low", {"neighbours": [(0.1, 0.9, 8.0)]}),
        ("rate_too_high", {"path": path([2.6, 3.5, 3.0, 2.5, 2.2, 2.1, 2.1])}),
        ("rate_too_low", {"path": path([2.6, 2.6, 2.59, 2.59, 2.58, 2.58, 2.58], train_end=2.55)}),
        ("under_trained", {"path": path(FALLING)}),
        ("overfitted", {"path": path(TURNED, train_end=0.3), "epochs": 6.0}),
        ("collapsed", {"answers": answers(repetition=0.8)}),
        ("collapsed", {"answers": answers(distinct_2=0.1)}),
        ("template", {"answers": answers(stopped=0.1)}),
        ("template", {"answers": answers(special_tokens=0.7)}),
        ("forgot", {"rows": ([row("world_facts", "retention", "worse", -0.3)])}),
        ("noise", {"rows": ([row("running_plan", "target", "can't tell", 0.02)])}),
    ],
)
def test_each_fault_is_named_alone(outcome, cause: str, changes: dict) -> None:
    assert causes(outcome, **changes) == {cause}


def test_lost_and_skipped_updates_are_counted(outcome) -> None:
    made = path(HEALTHY)
    made.train[3], made.grad_norm[5] = np.nan, np.inf
    evidence = RunEvidence(outcome, made, 0.5, ANSWERS, ANSWERS, None)
    (cause,) = [c for c in diagnose(evidence, [], units=TASKS, target=None) if c.cause == "diverged"]
    assert "1 updates with a loss that is no number, 1 with an infinite gradient" in cause.evidence


def test_a_base_that_loops_too_is_not_the_runs_fault(outcome) -> None:
    assert causes(outcome, answers=answers(repetition=0.8), base_answers=answers(repetition=0.8)) == set()


def test_answers_in_one_form_are_no_collapse_where_the_score_is_better(outcome) -> None:
    """Plans in the form that was asked for share their words; a base's rambling does not."""
    better = [row("running_plan", "target", "better", 0.5)]
    assert causes(outcome, answers=answers(distinct_2=0.1), rows=better) == set()
    assert causes(outcome, answers=answers(distinct_2=0.1), rows=[better[0] | {"verdict": "worse"}]) == {"collapsed"}
    assert causes(outcome, answers=answers(repetition=0.8), rows=better) == {
        "collapsed"
    }  # a loop is one whatever it scores


def test_repeated_rows_are_part_of_the_evidence(outcome) -> None:
    evidence = RunEvidence(outcome, path(TURNED, train_end=0.3), 6.0, ANSWERS, ANSWERS, 2.0)
    found = diagnose(evidence, [], units=TASKS, target=None)
    assert any("seen 6.0 times" in cause.evidence for cause in found if cause.cause == "overfitted")


def test_neighbours_differ_in_the_learning_rate_only(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results", items=10)
    found = gather_evidence(collect(study, tmp_path / "results"), tmp_path / "results")
    rates = {run: [rate for rate, *_ in e.neighbours] for run, e in found.items()}
    case = next(c.run for c in study.cells if not c.departs)
    assert rates[case] == [0.001, 0.1]
    assert rates[next(c.run for c in study.cells if c.rank == 64)] == []


def test_a_run_that_diverged_is_nobodys_neighbour(tmp_path: Path) -> None:
    """It has no final loss, and a record that held one, from before it diverged, would not count either."""
    study = synthetic.make_study(tmp_path)
    high = next(c.run for c in study.cells if c.learning_rate == 0.1)
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
    low = next(o for o in outcomes if o.cell and o.cell.learning_rate == 0.001)
    training = low.cell.identity["training"] | {"warmup_steps": 99}
    cell = dataclasses.replace(low.cell, identity=low.cell.identity | {"training": training}, departs={"search": "1"})
    others = [o for o in outcomes if o is not low]
    found = gather_evidence([*others, dataclasses.replace(low, cell=cell)], tmp_path / "results")
    case = next(c.run for c in study.cells if not c.departs)
    assert [rate for rate, *_ in found[case].neighbours] == [0.1] and found[low.subject].neighbours == []


def test_what_was_measured_too_seldom_is_named(outcome) -> None:
    def told(*heldout: float) -> str | None:
        return unmade(RunEvidence(outcome, path(np.array(heldout)), 0.5, {}, {}, None))

    assert told(2.6, 2.0, 1.8, 1.7) is None
    assert told(2.6, 2.0, 1.8) == "not checked for under-training: 2 held-out measurements after its start"
    assert told(2.6, 2.0) == "not checked for overfitting and under-training: 1 held-out measurement after its start"


def test_distance_is_the_norm_of_the_product(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 10)).astype("float32"), rng.normal(size=(8, 4)).astype("float32")
    name = "base_model.model.layers.0.q_proj.lora_{}.weight"
    save_file({name.format("A"): a, name.format("B"): b}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    assert adapter_distance(tmp_path) == pytest.approx(2 * np.linalg.norm(b @ a), rel=1e-5)
    assert adapter_distance(tmp_path / "nowhere") is None


def made_study(folder: Path, **options):
    study = synthetic.make_study(folder)
    synthetic.make_results(study, folder / "results", **options)
    return study, folder / "results"


def test_an_unscored_base_is_judged_by_what_its_runs_measured_first(tmp_path: Path) -> None:
    study, results = made_study(tmp_path, items=20)
    outcomes = collect(study, results)
    base = next(o for o in outcomes if o.kind == "base")
    assert untrained_loss(base, outcomes) == base.score.tasks["heldout_loss"].metrics["loss"]["value"]
    unscored = dataclasses.replace(base, score=None)
    assert untrained_loss(unscored, outcomes) == 2.6
    runs = [o for o in outcomes if o.record and o.base == base.subject]
    blind = dataclasses.replace(runs[0], record=dataclasses.replace(runs[0].record, first_heldout_loss=None))
    assert untrained_loss(unscored, [blind, runs[1]]) == 2.6 and untrained_loss(unscored, [blind]) is None


def test_the_vocabulary_of_a_hub_model_is_that_of_its_shape() -> None:
    entry = ModelEntry(
        hub="someone/model", revision="main", shape=synthetic.SHAPE, precision="4bit", chat_template=None
    )
    assert vocabulary(entry) == 4096
    assert vocabulary(dataclasses.replace(entry, shape={"text_config": {"vocab_size": 7}})) == 7
    assert vocabulary(dataclasses.replace(entry, shape=None)) is None  # nothing was downloaded


@pytest.mark.parametrize(
    "choices, chance",
    [(["a", "b"], 0.5), ("{{[good, bad]}}", 0.5), ("{{choices.text}}", None), (None, None), (["only"], None)],
)
def test_chance_is_known_where_choices_are_written_out(tmp_path: Path, choices, chance) -> None:
    content = {"configs": {"t": {"output_type": "multiple_choice", "doc_to_choice": choices}}}
    (tmp_path / "t.json").write_text(json.dumps(content))
    assert chance_level(tmp_path / "t.json", "t") == chance


def test_a_leak_is_found_token_for_token(tmp_path: Path) -> None:
    folder = tmp_path / "results/data/one"
    folder.mkdir(parents=True)
    rows = [[1, 2, 3], [4, 5], [6]]
    pq.write_table(pa.table({"input_ids": pa.array(rows, pa.list_(pa.int32()))}), folder / "train.parquet")
    pq.write_table(pa.table({"input_ids": pa.array([[4, 5], [9]], pa.list_(pa.int32()))}), folder / "heldout.parquet")
    assert leaks(tmp_path / "results", ["one"])["one"].evidence.startswith("1 held-out row of 2")
    assert leaks(tmp_path / "results", ["two"]) == {}  # what another form of the study left is none of it
    pq.write_table(pa.table({"input_ids": pa.array([[5], [9]], pa.list_(pa.int32()))}), folder / "heldout.parquet")
    assert leaks(tmp_path / "results", ["one"]) == {}


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    study, results = made_study(tmp_path, items=20)
    heldout, outcomes = compare.heldout_fingerprints(study, results), collect(study, results)
    axes = pd.DataFrame([{"axis": "batch", "value": "4×8", "token_ratio": 0.5, "equal_tokens": False}])
    text = " ".join(not_comparable(outcomes, heldout, axes))
    for part in ("training loss of runs with different numbers", "Losses across gemma-s and llama-s", "0.50 times"):
        assert part in text
    assert any("alpha moves" in sentence for sentence in caveats(study, outcomes)) and "lpha" not in text
