"""The largest gain of a study: shrunk for the choice, with the base's own error left in."""

import numpy as np
import pytest

from loragrid.comparing.best_setting import best_setting, shared_variance
from tests.fixtures.item_tables import TERMS, item_table

ITEMS, SETTINGS = 200, 8


def study(rng: np.random.Generator, gains: np.ndarray, unit: str = "plain"):
    """A base and settings with one item-level noise each: rows of comparisons and the table."""
    values = {"base": rng.normal(0, 1, ITEMS)}
    rows = []
    for number, gain in enumerate(gains):
        values[f"r{number}"] = gain + rng.normal(0, 1, ITEMS)
        change = values[f"r{number}"] - values["base"]
        rows.append(row(f"r{number}", change.mean(), change.std(ddof=1) / ITEMS**0.5))
    return rows, item_table(values, unit=unit)


def row(run: str, improvement: float, stderr: float, **changes) -> dict:
    known = {"run": run, "runs": run, "seeds": 1, "base": "base", "task": "t", "level": "adapters"}
    known |= {
        "improvement": improvement,
        "difference": improvement,
        "low": float("nan"),
        "high": float("nan"),
        "stderr": stderr,
        "df": ITEMS - 1,
        "verdict": "can't tell",
    }
    return known | changes


def test_the_base_is_what_gains_share() -> None:
    """Of two variances of 1 an item, the base's is in every gain."""
    rows, table = study(np.random.default_rng(0), np.zeros(SETTINGS))
    changes = [table.values[row["run"]] - table.values["base"] for row in rows]
    covariance = np.cov(np.array(changes)) / ITEMS
    by_hand = (covariance.sum() - np.trace(covariance)) / (SETTINGS * (SETTINGS - 1))
    assert shared_variance(rows, table) == pytest.approx(by_hand) and by_hand == pytest.approx(1 / ITEMS, rel=0.3)


def test_the_largest_of_eight_equal_gains_is_shrunk_and_covered() -> None:
    rng, raw, shrunken, covered = np.random.default_rng(1), [], [], []
    for _ in range(100):
        found = best_setting(*study(rng, np.zeros(SETTINGS)), TERMS)
        raw.append(found["raw"])
        shrunken.append(found["value"])
        covered.append(found["low"] <= 0 <= found["high"])
    # In standard errors of what the gains do not share.
    assert np.mean(raw) * ITEMS**0.5 > 1.2 and abs(np.mean(shrunken)) * ITEMS**0.5 < 0.5
    assert np.mean(covered) >= 0.93


def test_settings_with_two_seeds_compete_alone() -> None:
    rows, table = study(np.random.default_rng(2), np.array([0.1, 0.2, 0.9]))
    rows[0] |= {"level": "setting", "seeds": 2}
    rows[1] |= {"level": "setting", "seeds": 2}
    found = best_setting(rows, table, TERMS)
    assert found["level"] == "setting" and found["k"] == 2 and found["run"] in ("r0", "r1")
    assert best_setting(rows[2:], table, TERMS)["level"] == "adapters"


def test_a_proved_gain_is_hardly_shrunk_and_a_single_one_not_at_all() -> None:
    rows, table = study(np.random.default_rng(3), np.array([0.0, 0.0, 0.0, 0.0, 2.0]))
    found = best_setting(rows, table, TERMS)
    assert found["run"] == "r4" and found["value"] == pytest.approx(found["raw"])
    assert found["low"] < 2.0 < found["high"] and (found["k"], found["contenders"]) == (5, 1)
    alone = best_setting(rows[:1], table, TERMS)
    assert alone["value"] == alone["raw"] and alone["k"] == 1


def test_a_single_setting_keeps_the_interval_of_its_comparison() -> None:
    rows, table = study(np.random.default_rng(6), np.array([0.2]))
    gain = rows[0]["improvement"]
    kept = best_setting([rows[0] | {"low": gain - 0.4, "high": gain + 0.4}], table, TERMS)
    assert (kept["low"], kept["high"]) == (gain - 0.4, gain + 0.4)
    # Of a loss the improvement has the other sign.
    loss = rows[0] | {"difference": -gain, "low": -gain - 0.4, "high": -gain + 0.1}
    assert best_setting([loss], table, TERMS)["high"] == pytest.approx(gain + 0.4)


def test_the_interval_holds_for_the_fewest_degrees_of_freedom() -> None:
    rows, table = study(np.random.default_rng(4), np.zeros(3))
    wide = [rows[0] | {"df": 2.0}, *rows[1:]]
    one, other = best_setting(rows, table, TERMS), best_setting(wide, table, TERMS)
    assert one["run"] == other["run"] and other["high"] - other["low"] > 2 * (one["high"] - one["low"])


def test_no_share_changes_by_more_than_one() -> None:
    rows, table = study(np.random.default_rng(7), np.zeros(3), "share")
    found = best_setting([row | {"stderr": 0.5, "df": 1.0} for row in rows], table, TERMS)
    assert (found["low"], found["high"]) == (-1.0, 1.0)


def test_without_a_test_there_is_no_best() -> None:
    rows, table = study(np.random.default_rng(5), np.zeros(2))
    assert best_setting([row | {"verdict": ""} for row in rows], table, TERMS) is None
    assert best_setting([], table, TERMS) is None and best_setting(rows, None, TERMS) is None
