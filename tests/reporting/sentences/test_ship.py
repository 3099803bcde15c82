"""Sentences on why to ship a setting, or not."""

import pytest

from loragrid.comparing import trade_off
from loragrid.reporting.sentences.ship import REASONS, ship_reason_text


@pytest.mark.parametrize(
    "code, tasks, text",
    [
        ("no_loss_beyond_margin", [], "gain proved, no task lost more than 5 points"),
        (
            "no_loss_beyond_margin",
            ["text_loss"],
            "gain proved, no task lost more than 5 points; no margin is set for text loss, and no loss is proved there",
        ),
        ("lost_more_than_margin", ["lists"], "lost more than 5 points on lists"),
        ("loss_likely", ["lists"], "a loss of more than 5 points is likely, but not proved, on lists"),
        ("loss_not_excluded", ["lists", "sums"], "a loss of more than 5 points is not excluded on lists and sums"),
        ("worse_without_margin", ["text_loss"], "worse on text loss, for which no margin is set"),
        ("no_margin", ["text_loss"], "no margin is set for text loss"),
        ("no_score", ["lists"], "no score on lists"),
        ("gain_not_proved", [], "gain not proved"),
        ("worse_on_target", [], "worse on the target"),
        ("retention_not_measured", [], "retention not measured"),
    ],
)
def test_reason(code: str, tasks: list[str], text: str) -> None:
    assert ship_reason_text({"code": code, "tasks": tasks, "margin": 0.05}) == text


def test_every_code_has_words() -> None:
    codes = {value for name, value in vars(trade_off).items() if name.isupper() and isinstance(value, str)}
    assert codes - {"better", "worse", "can't tell", "ship", "don't ship"} == REASONS.keys()
