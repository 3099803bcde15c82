"""Ship, don't ship, can't tell: decided by the interval of pooled retention; single tasks are warnings."""

from types import SimpleNamespace

import pandas as pd
import pytest

from loragrid.comparing.terms import Terms
from loragrid.comparing.trade_off import trade_offs

TERMS = Terms("holm", 0.05, 0.8, 2000, 1, retention_margin=0.05)
TABLES = {
    name: SimpleNamespace(task=name, group=group, unit=unit, higher_is_better=unit == "share")
    for name, group, unit in (
        ("plan", "target", "share"), ("facts", "retention", "share"), ("sums", "retention", "share"),
        ("lists", "retention", "share"), ("text_loss", "retention", "plain"),
    )
}  # fmt: skip


def row(task: str, low: float, high: float, verdict: str = "can't tell", **changes) -> dict:
    """A comparison with its base; low and high are those of the difference."""
    middle = (low + high) / 2
    table = TABLES.get(task) or SimpleNamespace(group="retention", higher_is_better=True)
    known = {"run": "r", "runs": "r s", "seeds": 2, "base": "b", "level": "setting", "task": task}
    known |= {"group": table.group, "verdict": verdict, "difference": middle, "low": low, "high": high}
    known["improvement"] = middle if table.higher_is_better else -middle
    known |= {"stderr": (high - low) / 4, "df": 99, "p_corrected": 0.5, "detectable": 0.1}
    return known | changes


def pooled(low: float, high: float, verdict: str = "can't tell") -> dict:
    return row("retention", low, high, verdict)


def found(*kept: dict, gain: dict | None = None, tasks: tuple[str, ...] = ("plan", "facts", "sums", "lists")) -> dict:
    rows = pd.DataFrame([gain or row("plan", 0.2, 0.4, "better"), *kept])
    return trade_offs(rows, {task: TABLES[task] for task in tasks}, "plan", TERMS)[0]


def decision(decided: dict) -> tuple[str, str, list[str]]:
    return decided["ship"], decided["ship_reason"]["code"], decided["ship_reason"]["tasks"]


FINE = row("facts", -0.03, 0.05), row("sums", -0.04, 0.04), row("lists", -0.02, 0.06)
KEPT = pooled(-0.02, 0.04)


@pytest.mark.parametrize(
    "kept, ship, code",
    [
        (KEPT, "ship", "no_loss_beyond_margin"),
        # A proved loss smaller than the margin is accepted.
        (pooled(-0.04, -0.01, "worse"), "ship", "no_loss_beyond_margin"),
        (pooled(-0.085, -0.055, "worse"), "don't ship", "lost_more_than_margin"),
        (pooled(-0.085, -0.03, "worse"), "can't tell", "loss_not_excluded"),
        (pooled(-0.085, -0.055), "can't tell", "loss_not_excluded"),
        (pooled(-0.09, 0.03), "can't tell", "loss_not_excluded"),
    ],
)
def test_the_pooled_interval_decides(kept: dict, ship: str, code: str) -> None:
    decided = found(*FINE, kept)
    assert decision(decided) == (ship, code, []) and decided["ship_reason"]["margin"] == 0.05
    assert (decided["kept"], decided["kept_low"]) == (kept["improvement"], kept["low"])
    assert decided["worst_task"] == "sums" and decided["retention_tasks"] == 3


@pytest.mark.parametrize(
    "lists, warned",
    [
        (row("lists", -0.2, -0.06, "worse"), ["lists"]),
        (row("lists", -0.2, -0.06), ["lists"]),
        (row("lists", -0.04, -0.01, "worse"), ["lists"]),
        (row("lists", -0.2, 0.01), []),
    ],
)
def test_a_single_task_warns_and_does_not_decide(lists: dict, warned: list[str]) -> None:
    decided = found(*FINE[:2], lists, KEPT)
    assert decided["ship"] == "ship" and decided["warnings"] == warned


def test_one_seed_decides_nothing() -> None:
    alone = {"level": "adapters", "seeds": 1, "runs": "r"}
    gain = row("plan", 0.2, 0.4, "adapters differ", **alone)
    for kept in (KEPT, pooled(-0.4, -0.2, "adapters differ")):
        decided = found(*FINE, kept | alone, gain=gain)
        assert decision(decided) == ("can't tell", "one_seed", []) and decided["seeds"] == 1


def test_a_loss_on_the_target_is_not_shipped_and_an_unproved_gain_stays_open() -> None:
    assert decision(found(*FINE, KEPT, gain=row("plan", -0.2, -0.1, "worse")))[:2] == ("don't ship", "worse_on_target")
    assert decision(found(*FINE, KEPT, gain=row("plan", -0.1, 0.3))) == ("can't tell", "gain_not_proved", [])
    # A loss on the target that is not proved leaves it open too.
    assert found(*FINE, KEPT, gain=row("plan", -0.2, -0.01))["ship"] == "can't tell"


def test_a_task_in_another_unit_is_named_and_never_averaged() -> None:
    tasks = ("plan", "facts", "sums", "text_loss")
    decided = found(*FINE[:2], row("text_loss", -0.3, 0.4), KEPT, tasks=tasks)
    assert decided["unmargined"] == ["text_loss"] and decided["retention_tasks"] == 2 and decided["warnings"] == []
    assert decision(decided) == ("ship", "no_loss_beyond_margin", ["text_loss"])
    decided = found(*FINE[:2], row("text_loss", 0.3, 0.4, "worse"), KEPT, tasks=tasks)
    assert decided["warnings"] == ["text_loss"]
    decided = found(row("text_loss", -0.3, 0.4), tasks=("plan", "text_loss"))
    assert decision(decided) == ("can't tell", "no_margin", ["text_loss"])


def test_a_missing_task_leaves_it_open() -> None:
    decided = found(*FINE[:2])
    assert decision(decided) == ("can't tell", "no_score", ["lists"]) and decided["kept"] is None
    assert decision(found(tasks=("plan",))) == ("can't tell", "retention_not_measured", [])


def test_a_setting_that_another_beats_in_both_is_off_the_front() -> None:
    rows = []
    for run, gain, kept in (("a", 0.3, 0.0), ("b", 0.2, -0.01), ("c", 0.1, 0.02)):
        rows.append(row("plan", gain - 0.05, gain + 0.05, "better", run=run))
        rows.append(row("retention", kept - 0.02, kept + 0.02, run=run))
    made = trade_offs(pd.DataFrame(rows), {"plan": TABLES["plan"]}, "plan", TERMS)
    assert {row["run"]: row["pareto"] for row in made} == {"a": True, "b": False, "c": True}
