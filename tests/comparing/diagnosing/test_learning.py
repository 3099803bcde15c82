"""A model that learned nothing at any rate is said to have learned nothing."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from loragrid.comparing.diagnosing.learning import learned_nothing
from tests.fixtures.item_tables import TERMS, item_table

RNG = np.random.default_rng(0)
RUNS = {"one": ("small", 0.001), "two": ("small", 0.01), "big": ("large", 0.01)}


def found(**improvements: tuple[float, str]) -> dict[str, dict]:
    """What is said of each base, from each run's (improvement, verdict)."""
    values = {f"base-{model}": RNG.random(50) for model in ("small", "large")}
    rows, outcomes = [], []
    for run, (improvement, verdict) in improvements.items():
        model, rate = RUNS[run]
        values[run] = values[f"base-{model}"] + improvement
        settings = SimpleNamespace(learning_rate=rate)
        outcomes.append(SimpleNamespace(subject=run, kind="run", model=model, cell=SimpleNamespace(settings=settings)))
        rows.append(
            {
                "run": run, "runs": run, "seeds": 2, "base": f"base-{model}", "task": "t", "verdict": verdict,
                "level": "adapters" if verdict == "adapters differ" else "setting", "improvement": improvement,
                "stderr": 0.01, "df": 40.0, "difference": improvement, "low": improvement - 0.02, "high": improvement + 0.02,
            }
        )  # fmt: skip
    results = SimpleNamespace(target="t", tables={"t": item_table(values)}, outcomes=outcomes)
    judged = SimpleNamespace(comparisons=pd.DataFrame(rows), terms=TERMS)
    return {row["base"]: row for row in learned_nothing(results, judged)}


def test_a_model_without_a_gain_at_any_rate_is_named() -> None:
    said = found(one=(0.0, "can't tell"), two=(0.01, "can't tell"), big=(0.4, "better"))
    assert said.keys() == {"base-small"}
    small = said["base-small"]
    assert (small["model"], small["settings"], small["learning_rates"]) == ("small", 2, [0.001, 0.01])
    assert small["code"] == "learned_nothing" and small["best"]["run"] == "two" and small["best"]["high"] < 0.05


@pytest.mark.parametrize("gain", [(0.4, "better"), (0.4, "adapters differ")])
def test_one_gain_at_one_rate_is_enough(gain: tuple[float, str]) -> None:
    assert found(one=(-0.2, "worse"), two=gain) == {}


@pytest.mark.parametrize("loss", [(-0.4, "worse"), (-0.4, "adapters differ")])
def test_a_model_that_only_lost_learned_nothing(loss: tuple[float, str]) -> None:
    assert found(one=loss)["base-small"]["code"] == "learned_nothing"


def test_a_gain_that_is_not_proved_is_not_shown_and_not_excluded() -> None:
    assert found(one=(0.04, "can't tell"))["base-small"]["code"] == "no_gain_shown"


def test_what_was_not_compared_says_nothing() -> None:
    assert found(one=(0.0, "")) == {}
