"""What settings are compared on, and how much a measure's scores vary between seeds."""

import numpy as np
import pytest

from loragrid.comparing.measures import describe_spreads, measures_of, spreads_of
from tests.fixtures.item_tables import item_table

RNG = np.random.default_rng(0)


def table(task: str, group: str, unit: str = "share", subjects: str = "ab"):
    return item_table({subject: RNG.random(8) for subject in subjects}, task=task, group=group, unit=unit)


def test_the_target_comes_first_pooled_retention_second_and_the_rest_is_exploratory() -> None:
    tables = [table("plan", "target"), table("other", "target"), table("facts", "retention")]
    tables += [table("sums", "retention"), table("text", "retention", "plain")]
    found = {measure.name: measure for measure in measures_of({table.task: table for table in tables}, "plan")}
    assert {name: measure.family for name, measure in found.items()} == {
        "plan": "target", "other": "exploratory", "facts": "exploratory", "sums": "exploratory",
        "text": "exploratory", "retention": "retention",
    }  # fmt: skip
    # A loss is in another unit and cannot be averaged with shares.
    assert [part.task for part in found["retention"].tables] == ["facts", "sums"]
    by_hand = np.mean([tables[2].values["a"].mean(), tables[3].values["a"].mean()])
    assert found["retention"].score("a") == pytest.approx(by_hand)


def test_without_shares_there_is_no_pooled_retention() -> None:
    tables = {"plan": table("plan", "target"), "text": table("text", "retention", "plain")}
    assert [measure.name for measure in measures_of(tables, "plan")] == ["plan", "text"]


def test_a_subject_without_one_of_the_tasks_lacks_the_mean() -> None:
    tables = {"facts": table("facts", "retention"), "sums": table("sums", "retention", subjects="a")}
    facts, _, pooled = measures_of(tables, None)
    assert facts.lacks("ab") is None and pooled.lacks("ab") == "b" and pooled.lacks("a") is None


def test_a_weighted_score_weighs_the_items_it_has() -> None:
    values = {"a": np.array([1.0, 3.0, np.nan])}
    weighted = item_table(values, unit="plain", weights={"a": np.array([3.0, 1.0, 5.0])})
    (measure,) = measures_of({"t": weighted}, "t")
    assert measure.score("a") == pytest.approx(1.5)


def scores(settings: dict[str, list[float]]):
    """A table of one item whose values are the runs' scores, and the settings as lists of subjects."""
    values = {f"{name}{seed}": np.array([score]) for name, own in settings.items() for seed, score in enumerate(own)}
    runs = [[f"{name}{seed}" for seed in range(len(own))] for name, own in settings.items()]
    return measures_of({"t": item_table(values)}, "t"), runs


def test_settings_that_look_alike_share_their_spread() -> None:
    settings = {name: [0.5, 0.5 + step] for name, step in zip("abcdef", (0.02, 0.03, 0.04, 0.03, 0.02, 0.04))}
    measures, runs = scores(settings)
    found = spreads_of(measures, runs)["t"]
    variance = np.mean([np.var(own, ddof=1) for own in settings.values()])
    assert all(spread.pooled and spread.df == 6 for spread in found.values())
    assert found["a0"].variance == pytest.approx(variance)
    assert describe_spreads({"t": found}) == {
        "t": {"pooled": {"sd": pytest.approx(variance**0.5), "df": 6, "settings": 6}, "own": {}}
    }


@pytest.mark.parametrize("count", [3, 5])
def test_too_few_settings_or_degrees_of_freedom_keep_their_own(count: int) -> None:
    measures, runs = scores({name: [0.5, 0.53] for name in "abcdef"[:count]})
    found = spreads_of(measures, runs)["t"]
    assert not any(spread.pooled for spread in found.values()) and {spread.df for spread in found.values()} == {1}


def test_a_setting_that_broke_down_has_its_own_spread() -> None:
    measures, runs = scores({name: [0.5, 0.52, 0.51] for name in "abcde"} | {"z": [0.1, 0.9, 0.4]})
    found = spreads_of(measures, runs)["t"]
    assert not found["z0"].pooled and found["z0"].variance == pytest.approx(np.var([0.1, 0.9, 0.4], ddof=1))
    # Nor does it widen that of the others.
    assert found["a0"].pooled and found["a0"].variance == pytest.approx(np.var([0.5, 0.52, 0.51], ddof=1))


def test_one_seed_has_no_spread() -> None:
    measures, runs = scores({"a": [0.5], "b": [0.4, 0.5]})
    assert set(spreads_of(measures, runs)["t"]) == {"b0"}
