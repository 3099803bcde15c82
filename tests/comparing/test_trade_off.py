"""Ship, don't ship, can't tell: from every retention task's own interval, and honest about what it leaves out."""

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


FINE = row("facts", -0.03, 0.05), row("sums", -0.04, 0.04)


@pytest.mark.parametrize(
    "lists, ship, reason",
    [
        (row("lists", -0.02, 0.06), "ship", "gain proved, no task lost more than the margin"),
        (row("lists", -0.085, -0.055, "worse"), "don't ship", "lost more than the margin on lists"),
        (row("lists", -0.085, -0.055), "can't tell", "a loss beyond the margin is likely, not proved, on lists"),
        (row("lists", -0.09, 0.03), "can't tell", "a loss beyond the margin is not excluded on lists"),
    ],
)
def test_every_single_task_counts_and_not_their_mean(lists: dict, ship: str, reason: str) -> None:
    told = found(*FINE, lists)
    assert (told["ship"], told["ship_reason"]) == (ship, reason)
    assert told["kept_low"] > -0.05  # the mean alone would ship all of them
    assert told["worst_task"] == ("lists" if ship != "ship" else "sums") and told["retention_tasks"] == 3


def test_no_gain_is_not_shipped_and_an_unproved_one_is_not_told() -> None:
    lists = row("lists", -0.02, 0.02)
    assert found(*FINE, lists, gain=row("plan", -0.2, -0.1, "worse"))["ship"] == "don't ship"
    assert found(*FINE, lists, gain=row("plan", -0.1, 0.3))["ship_reason"] == "gain not proved"
    assert (
        found(*FINE, lists, gain=row("plan", -0.2, -0.01))["ship"] == "can't tell"
    )  # a loss that is not proved either


def test_a_task_in_another_unit_is_named_and_never_averaged() -> None:
    tasks = ("plan", "facts", "sums", "text_loss")
    told = found(*FINE, row("text_loss", -0.3, 0.4), tasks=tasks)
    assert told["ship"] == "ship" and told["unmargined"] == ["text_loss"] and told["retention_tasks"] == 2
    assert told["ship_reason"].endswith("no margin for text loss, which is not proved worse")
    told = found(*FINE, row("text_loss", 0.3, 0.4, "worse"), tasks=tasks)
    assert (told["ship"], told["ship_reason"]) == ("can't tell", "worse on text loss, for which no margin is set")
    told = found(row("text_loss", -0.3, 0.4), tasks=("plan", "text_loss"))
    assert (told["ship"], told["ship_reason"]) == ("can't tell", "no margin for text loss")


def test_a_missing_task_leaves_it_open() -> None:
    told = found(*FINE)
    assert (told["ship"], told["ship_reason"], told["kept"]) == ("can't tell", "no score on lists", None)
    assert found(tasks=("plan",))["ship_reason"] == "retention not measured"
