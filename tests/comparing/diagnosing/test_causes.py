"""Synthetic runs with each fault, and healthy ones: each fault is found, and none is invented."""

import dataclasses

import numpy as np
import pytest

from loragrid.comparing.diagnosing.causes import Cause, diagnose, unmade
from loragrid.comparing.diagnosing.run_evidence import LossPath, Neighbour, RunEvidence
from loragrid.records.outcomes import collect
from loragrid.reporting.sentences.causes import CAUSE_NAMES, cause_texts
from tests.fixtures import synthetic

UNITS = {"running_plan": "share", "world_facts": "share"}
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
    found = diagnose(evidence, rows or [], target="running_plan")
    for text in cause_texts(map(dataclasses.asdict, found), UNITS):
        assert text.name == CAUSE_NAMES[text.cause] and text.evidence and text.threshold
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
    neighbours = (Neighbour(0.001, 1.6, 1.0), Neighbour(0.1, 1.5, 8.0))
    assert causes(outcome, path=path(heldout, seed=seed), rows=rows, neighbours=neighbours) == set()


FALLING = np.linspace(2.6, 1.4, 7)
TURNED = np.array([2.6, 1.9, 1.5, 1.4, 1.5, 1.7, 1.9])


@pytest.mark.parametrize(
    "cause, changes",
    [
        ("diverged", {"path": path(np.linspace(2.6, 4.0, 7))}),
        ("diverged", {"path": path(HEALTHY, jumps=8)}),
        ("rate_too_high", {"neighbours": (Neighbour(0.001, 0.9, 1.0),)}),
        ("rate_too_low", {"neighbours": (Neighbour(0.1, 0.9, 8.0),)}),
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
    (cause,) = [c for c in diagnose(evidence, [], target=None) if c.cause == "diverged"]
    assert cause == Cause("diverged", "updates_lost", {"not_finite": 1, "infinite_gradient": 1})


def test_a_base_that_loops_too_is_not_the_runs_fault(outcome) -> None:
    assert causes(outcome, answers=answers(repetition=0.8), base_answers=answers(repetition=0.8)) == set()


def test_answers_in_one_form_are_no_collapse_where_the_score_is_better(outcome) -> None:
    """Plans in the requested form share their words; a base's rambling does not."""
    better = [row("running_plan", "target", "better", 0.5)]
    assert causes(outcome, answers=answers(distinct_2=0.1), rows=better) == set()
    assert causes(outcome, answers=answers(distinct_2=0.1), rows=[better[0] | {"verdict": "worse"}]) == {"collapsed"}
    assert causes(outcome, answers=answers(repetition=0.8), rows=better) == {
        "collapsed"
    }  # a loop is one whatever it scores


def test_repeated_rows_are_part_of_the_evidence(outcome) -> None:
    evidence = RunEvidence(outcome, path(TURNED, train_end=0.3), 6.0, ANSWERS, ANSWERS, 2.0)
    (cause,) = [c for c in diagnose(evidence, [], target=None) if c.cause == "overfitted"]
    assert cause.evidence == "heldout_turned_up" and cause.measured["epochs"] == 6.0


def test_checks_with_too_few_measurements_are_named(outcome) -> None:
    def found(*heldout: float) -> dict | None:
        return unmade(RunEvidence(outcome, path(np.array(heldout)), 0.5, {}, {}, None))

    assert found(2.6, 2.0, 1.8, 1.7) is None
    assert found(2.6, 2.0, 1.8) == {"checks": ["under_trained"], "measurements": 2}
    assert found(2.6, 2.0) == {"checks": ["overfitted", "under_trained"], "measurements": 1}
