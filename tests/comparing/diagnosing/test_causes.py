"""Synthetic runs with each fault, and healthy ones: each fault is found, and none is invented."""

import dataclasses

import numpy as np
import pytest

from loragrid.comparing.diagnosing.causes import Cause, with_symptoms
from loragrid.comparing.diagnosing.loss_causes import unmade
from loragrid.comparing.diagnosing.run_causes import run_causes
from loragrid.comparing.diagnosing.run_evidence import LossPath, Neighbour, RunEvidence
from loragrid.records.outcomes import collect
from loragrid.reporting.sentences.causes import CAUSE_NAMES, cause_texts
from tests.fixtures import synthetic

UNITS = dict.fromkeys(("running_plan", "world_facts", "world_sums"), "share")
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


def diagnosed(outcome, *, rows: list[dict] | None = None, **changes) -> list[Cause]:
    final = changes.pop("final", None)
    evidence = RunEvidence(outcome, path(HEALTHY), 0.5, ANSWERS, ANSWERS, 2.0)
    evidence = dataclasses.replace(evidence, **changes)
    if final is None and evidence.path is not None:
        final = float(evidence.path.heldout[-1])
    record = dataclasses.replace(outcome.record, final_heldout_loss=final)
    evidence = dataclasses.replace(evidence, outcome=dataclasses.replace(outcome, record=record))
    found = with_symptoms(run_causes(evidence, rows or []))
    for text in cause_texts(map(dataclasses.asdict, found), UNITS):
        assert text.name == CAUSE_NAMES[text.cause] and text.evidence and text.threshold
    return found


def causes(outcome, **changes) -> set[str]:
    """The causes in their own right, without their symptoms."""
    return {cause.cause for cause in diagnosed(outcome, **changes) if cause.symptom_of is None}


def row(task: str, group: str, verdict: str, difference: float, *, family: str = "exploratory") -> dict:
    known = {"task": task, "group": group, "family": family, "verdict": verdict, "difference": difference}
    return known | {"improvement": difference, "low": difference - 0.1, "high": difference + 0.1, "seeds": 2}


def pooled(verdict: str, difference: float) -> dict:
    return row("retention", "retention", verdict, difference, family="retention")


def answers(**changes) -> dict:
    return {"running_plan": ANSWERS["running_plan"] | changes}


@pytest.mark.parametrize("seed", range(20))
def test_healthy_runs_have_no_fault(outcome, seed: int) -> None:
    rng = np.random.default_rng(seed)
    heldout = HEALTHY + 0.003 * rng.standard_normal(7)
    rows = [row("running_plan", "target", "better", 0.5), row("world_facts", "retention", "can't tell", -0.01)]
    rows.append(pooled("can't tell", -0.01))
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
        ("forgot", {"rows": ([pooled("worse", -0.3)])}),
    ],
)
def test_each_fault_is_named_alone(outcome, cause: str, changes: dict) -> None:
    assert causes(outcome, **changes) == {cause}


def test_lost_and_skipped_updates_are_counted(outcome) -> None:
    made = path(HEALTHY)
    made.train[3], made.grad_norm[5] = np.nan, np.inf
    evidence = RunEvidence(outcome, made, 0.5, ANSWERS, ANSWERS, None)
    (cause,) = [c for c in run_causes(evidence, []) if c.cause == "diverged"]
    assert cause == Cause("diverged", "updates_lost", {"not_finite": 1, "infinite_gradient": 1})


def test_a_base_that_loops_too_is_not_the_runs_fault(outcome) -> None:
    assert causes(outcome, answers=answers(repetition=0.8), base_answers=answers(repetition=0.8)) == set()


def test_answers_in_one_form_are_no_collapse_where_the_score_is_better(outcome) -> None:
    """Plans in the requested form share their words; a base's rambling does not."""
    better = row("running_plan", "target", "better", 0.5)
    assert causes(outcome, answers=answers(distinct_2=0.1), rows=[better]) == set()
    # What one seed shows of this adapter is enough to explain this adapter's answers.
    assert causes(outcome, answers=answers(distinct_2=0.1), rows=[better | {"verdict": "adapters differ"}]) == set()
    for other in (row("running_plan", "target", "worse", -0.5), row("running_plan", "target", "can't tell", 0.5)):
        assert causes(outcome, answers=answers(distinct_2=0.1), rows=[other]) == {"collapsed"}
    # A loop is one whatever it scores.
    assert causes(outcome, answers=answers(repetition=0.8), rows=[better]) == {"collapsed"}


def test_repeated_rows_are_part_of_the_evidence(outcome) -> None:
    evidence = RunEvidence(outcome, path(TURNED, train_end=0.3), 6.0, ANSWERS, ANSWERS, 2.0)
    (cause,) = [c for c in run_causes(evidence, []) if c.cause == "overfitted"]
    assert cause.evidence == "heldout_turned_up" and cause.measured["epochs"] == 6.0


def test_checks_with_too_few_measurements_are_named(outcome) -> None:
    def found(*heldout: float) -> dict | None:
        return unmade(RunEvidence(outcome, path(np.array(heldout)), 0.5, {}, {}, None))

    assert found(2.6, 2.0, 1.8, 1.7) is None
    assert found(2.6, 2.0, 1.8) == {"checks": ["under_trained"], "measurements": 2}
    assert found(2.6, 2.0) == {"checks": ["overfitted", "under_trained"], "measurements": 1}


def symptoms(outcome, **changes) -> dict[str, str | None]:
    return {cause.cause: cause.symptom_of for cause in diagnosed(outcome, **changes)}


BABBLE = {"answers": answers(stopped=0.0, repetition=1.0, distinct_2=0.0), "rows": [pooled("worse", -0.5)]}


def test_a_collapsed_run_at_too_high_a_rate_is_not_a_fault_of_the_template(outcome) -> None:
    found = symptoms(outcome, path=path([0.16, 3.2, 3.0, 2.9]), neighbours=(Neighbour(0.001, 0.11, 1.0),), **BABBLE)
    assert found.pop("rate_too_high") is None
    assert found == dict.fromkeys(("diverged", "collapsed", "template", "forgot"), "rate_too_high")


def test_symptoms_come_behind_the_causes(outcome) -> None:
    found = diagnosed(outcome, path=path([2.6, 3.5, 4.0, 4.5]), **BABBLE)
    assert [cause.symptom_of for cause in found] == [None, "diverged", "diverged", "diverged", "diverged"]
    assert found[0].cause == "diverged"


def test_a_loop_does_not_end_and_forgetting_is_another_matter(outcome) -> None:
    assert symptoms(outcome, **BABBLE) == {"collapsed": None, "template": "collapsed", "forgot": None}


def test_answers_that_the_base_does_not_end_either_are_explained_by_any_other_fault(outcome) -> None:
    """Where the base ends its answers, tuning broke them; where it does not, the run only stayed as it was."""
    rambling = {"answers": answers(stopped=0.1), "base_answers": answers(stopped=0.2)}
    assert symptoms(outcome, **rambling) == {"template": None}
    assert symptoms(outcome, path=path(FALLING), **rambling) == {"under_trained": None, "template": "under_trained"}
    broke = rambling | {"base_answers": ANSWERS}
    assert symptoms(outcome, path=path(FALLING), **broke) == {"under_trained": None, "template": None}


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.02])
def test_thresholds_are_shares_of_what_there_was_to_win(outcome, scale: float) -> None:
    """The same path in small has the same faults: the demo's base case can win 0.05 nats."""

    def found(heldout, **changes) -> set[str]:
        return causes(outcome, path=path(0.1 + scale * np.array(heldout), train_end=0.1), **changes)

    assert found(FALLING) == {"under_trained"}
    assert found(HEALTHY) == set()
    assert found(HEALTHY, neighbours=(Neighbour(0.001, 0.1 + scale * 0.9, 1.0),)) == {"rate_too_high"}
    assert found(HEALTHY, neighbours=(Neighbour(0.001, 0.1 + scale * 1.09, 1.0),)) == set()
    assert "diverged" in found(np.linspace(2.6, 2.9, 7), lowest_loss=0.1 + scale * 1.1)


def test_a_difference_that_two_seeds_have_too_is_none(outcome) -> None:
    changes = {"neighbours": (Neighbour(0.001, 0.95, 1.0),)}
    assert causes(outcome, **changes, seed_sd=0.01) == {"rate_too_high"}
    assert causes(outcome, **changes, seed_sd=0.1) == set()


def test_noise_of_a_measurement_is_no_progress(outcome) -> None:
    """A tenth of a tiny fall is less than a measurement differs by."""
    assert causes(outcome, path=path(0.5 - 0.005 * np.linspace(0, 1, 7), train_end=0.5), final=0.495) == {
        "rate_too_low"
    }


def test_a_run_that_won_little_of_what_another_won_barely_moved(outcome) -> None:
    little = np.array([2.6, 2.56, 2.54, 2.53, 2.53, 2.53, 2.53])
    (cause,) = diagnosed(outcome, path=path(little, train_end=2.5), lowest_loss=1.1)
    assert (cause.cause, cause.evidence) == ("rate_too_low", "barely_won")
    assert cause.measured["to_win"] == pytest.approx(1.5)


def test_forgetting_is_the_pooled_verdict_with_the_tasks_as_details(outcome) -> None:
    tasks = [row("world_facts", "retention", "worse", -0.3), row("world_sums", "retention", "can't tell", 0.02)]
    assert causes(outcome, rows=[*tasks, pooled("can't tell", -0.1)]) == set(), "one task is exploratory"
    # One seed shows two adapters, and nothing of the setting.
    assert causes(outcome, rows=[*tasks, pooled("adapters differ", -0.2)]) == set()
    (cause,) = diagnosed(outcome, rows=[*tasks, pooled("worse", -0.14)])
    assert cause.measured["difference"] == -0.14 and cause.measured["seeds"] == 2
    assert cause.measured["tasks"] == [
        {"task": "world_facts", "difference": -0.3},
        {"task": "world_sums", "difference": 0.02},
    ]


def test_a_warm_up_as_long_as_the_run_is_named(outcome) -> None:
    """The made-up runs have 5 updates of warm-up."""
    short = dataclasses.replace(outcome, record=dataclasses.replace(outcome.record, planned_steps=4))
    (cause,) = diagnosed(short)
    assert (cause.cause, cause.measured["reached"]) == ("warmup", 0.6)
    assert diagnosed(outcome) == []
