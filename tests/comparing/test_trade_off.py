"""Ship, don't ship, can't tell: decided by every retention task's own interval, with what it leaves out."""

from types import SimpleNamespace

import pandas as pd
import pytest

from loragrid.comparing.comparisons import Terms
from loragrid.comparing.trade_off import trade_offs

TERMS = Terms("holm", 0.05, 0.8, 2000, 1, retention_margin=0.05)
TABLES = {
    name: SimpleNamespace(task=name, group=group, unit=unit, higher_is_better=unit == "share")
    for name, group, unit in (
        ("plan", "target", "share"), ("facts", "retention", "share"), ("sums", "retention", "share"),
        ("lists", "retention", "share"), ("text_loss", "retention", "plain"),
    )
}  # fmt: skip


def row(task: str, low: float, high: float, verdict: str = "can't tell") -> dict:
    """A comparison with its base; low and high are those of the difference."""
    middle, table = (low + high) / 2, TABLES[task]
    known = {"run": "r", "runs": "r", "seeds": 1, "base": "b", "task": task, "group": table.group, "verdict": verdict}
    known |= {
        "difference": middle,
        "improvement": middle if table.higher_is_better else -middle,
        "low": low,
        "high": high,
    }
    return known | {"stderr": (high - low) / 4, "df": 99, "p_corrected": 0.5, "detectable": 0.1}


def found(*kept: dict, gain: dict | None = None, tasks: tuple[str, ...] = ("plan", "facts", "sums", "lists")) -> dict:
    rows = pd.DataFrame([gain or row("plan", 0.2, 0.4, "better"), *kept])
    return trade_offs(rows, {task: TABLES[task] for task in tasks}, "plan", TERMS)[0]


def decision(decided: dict) -> tuple[str, str, list[str]]:
    return decided["ship"], decided["ship_reason"]["code"], decided["ship_reason"]["tasks"]


FINE = row("facts", -0.03, 0.05), row("sums", -0.04, 0.04)


@pytest.mark.parametrize(
    "lists, ship, code, tasks",
    [
        (row("lists", -0.02, 0.06), "ship", "no_loss_beyond_margin", []),
        (row("lists", -0.085, -0.055, "worse"), "don't ship", "lost_more_than_margin", ["lists"]),
        (row("lists", -0.085, -0.055), "can't tell", "loss_likely", ["lists"]),
        (row("lists", -0.09, 0.03), "can't tell", "loss_not_excluded", ["lists"]),
    ],
)
def test_every_single_task_counts_and_not_their_mean(lists: dict, ship: str, code: str, tasks: list[str]) -> None:
    decided = found(*FINE, lists)
    assert decision(decided) == (ship, code, tasks) and decided["ship_reason"]["margin"] == 0.05
    assert decided["kept_low"] > -0.05  # the mean alone would ship all of them
    assert decided["worst_task"] == ("lists" if ship != "ship" else "sums") and decided["retention_tasks"] == 3


def test_a_loss_on_the_target_is_not_shipped_and_an_unproved_gain_stays_open() -> None:
    lists = row("lists", -0.02, 0.02)
    assert found(*FINE, lists, gain=row("plan", -0.2, -0.1, "worse"))["ship"] == "don't ship"
    assert decision(found(*FINE, lists, gain=row("plan", -0.1, 0.3))) == ("can't tell", "gain_not_proved", [])
    # A loss on the target that is not proved leaves it open too.
    assert found(*FINE, lists, gain=row("plan", -0.2, -0.01))["ship"] == "can't tell"


def test_a_task_in_another_unit_is_named_and_never_averaged() -> None:
    tasks = ("plan", "facts", "sums", "text_loss")
    decided = found(*FINE, row("text_loss", -0.3, 0.4), tasks=tasks)
    assert decided["ship"] == "ship" and decided["unmargined"] == ["text_loss"] and decided["retention_tasks"] == 2
    assert decision(decided) == ("ship", "no_loss_beyond_margin", ["text_loss"])
    decided = found(*FINE, row("text_loss", 0.3, 0.4, "worse"), tasks=tasks)
    assert decision(decided) == ("can't tell", "worse_without_margin", ["text_loss"])
    decided = found(row("text_loss", -0.3, 0.4), tasks=("plan", "text_loss"))
    assert decision(decided) == ("can't tell", "no_margin", ["text_loss"])


def test_a_missing_task_leaves_it_open() -> None:
    decided = found(*FINE)
    assert decision(decided) == ("can't tell", "no_score", ["lists"]) and decided["kept"] is None
    assert decision(found(tasks=("plan",))) == ("can't tell", "retention_not_measured", [])
