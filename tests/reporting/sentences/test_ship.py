"""Sentences on why to ship a setting, or not, and on what the margin demands."""

from types import SimpleNamespace

import pytest

from loragrid.comparing import trade_off
from loragrid.reporting.sentences.ship import REASONS, margin_sentence, ship_reason_text


@pytest.mark.parametrize(
    "code, tasks, text",
    [
        ("one_seed", [], "one seed: another may forget more"),
        ("no_loss_beyond_margin", [], "gain proved, mean retention lost no more than 5 points"),
        (
            "no_loss_beyond_margin",
            ["text_loss"],
            "gain proved, mean retention lost no more than 5 points; no margin is set for text loss",
        ),
        ("lost_more_than_margin", ["lists"], "lost more than 5 points of mean retention"),
        ("loss_not_excluded", ["lists"], "a loss of more than 5 points of mean retention is not excluded"),
        ("no_margin", ["text_loss"], "no margin is set for text loss"),
        ("no_score", ["lists", "sums"], "no score on lists and sums"),
        ("gain_not_proved", [], "gain not proved"),
        ("worse_on_target", [], "worse on the target"),
        ("retention_not_measured", [], "retention not measured"),
    ],
)
def test_reason(code: str, tasks: list[str], text: str) -> None:
    assert ship_reason_text({"code": code, "tasks": tasks, "margin": 0.05}) == text


def test_every_code_has_words() -> None:
    names = {"ONE_SEED", "WORSE_ON_TARGET", "LOST_MORE_THAN_MARGIN", "GAIN_NOT_PROVED", "NO_SCORE", "NO_MARGIN"}
    names |= {"RETENTION_NOT_MEASURED", "LOSS_NOT_EXCLUDED", "NO_LOSS_BEYOND_MARGIN"}
    codes = {value for value in vars(trade_off).values() if isinstance(value, str) and value in REASONS}
    assert {getattr(trade_off, name) for name in names} == codes == REASONS.keys()


DEMANDS = {"pass_if_unchanged": 0.304, "items": 300, "seeds": 3, "at_least": False}
DEMANDS |= {"items_needed": 1234, "items_at_twice_the_seeds": 777, "seeds_needed": None}


@pytest.mark.parametrize(
    "changes, text",
    [
        (
            {},
            "A model that forgot nothing passes with a probability of 30% (300 independent retention items, 3 seeds); "
            "80% takes about 1\u202f200 items or 780 with 6 seeds.",
        ),
        (
            {"pass_if_unchanged": 0.9},
            "A model that forgot nothing passes with a probability of 90% (300 independent retention items, 3 seeds).",
        ),
        (
            {"items_needed": None, "items_at_twice_the_seeds": None, "seeds_needed": 9},
            "A model that forgot nothing passes with a probability of 30% (300 independent retention items, 3 seeds); "
            "80% takes 9 seeds with these items.",
        ),
        (
            {"items_needed": None, "items_at_twice_the_seeds": None},
            "A model that forgot nothing passes with a probability of 30% (300 independent retention items, 3 seeds); "
            "80% takes far more items and seeds.",
        ),
        (
            {"at_least": True, "pass_if_unchanged": 0.0},
            "With one seed no setting can pass. With two, a model that forgot nothing passes with a probability of 80% "
            "from about 1\u202f200 independent retention items on, or more where seeds differ; there are 300.",
        ),
        (
            {"at_least": True, "items_needed": None},
            "With one seed no setting can pass. With two, 300 independent retention items would be far too few for this "
            "margin.",
        ),
    ],
)
def test_what_the_margin_demands(changes: dict, text: str) -> None:
    summary = {"margin_demands": DEMANDS | changes, "terms": {"power": 0.8}}
    assert margin_sentence(SimpleNamespace(summary=summary, power="80%")) == text


def test_nothing_is_demanded_without_retention() -> None:
    assert margin_sentence(SimpleNamespace(summary={"margin_demands": None})) == ""
