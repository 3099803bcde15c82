"""Sentences on the largest gain, shrunk, and on models that learned nothing."""

from types import SimpleNamespace
from typing import Any

from loragrid.reporting.sentences.largest_gain import largest_gain_text, unlearned_texts

BEST = {"run": "r", "k": 8, "level": "setting", "raw": 0.41, "value": 0.362, "low": 0.25, "high": 0.52}
NOTHING = {"model": "llama-m", "code": "learned_nothing", "settings": 3, "learning_rates": [0.001, 0.01]}
NOTHING |= {"best": BEST | {"value": 0.01, "low": -0.05, "high": 0.04}}


def compared(**summary: Any) -> SimpleNamespace:
    known = {"best_setting": None, "learned_nothing": []} | summary
    labels = {"r": "rank 64"}
    return SimpleNamespace(
        summary=known, unit="share", setting_labels=labels, interval="95% interval", target="running_plan"
    )


def test_the_largest_gain_is_told_with_the_luck_of_its_choice() -> None:
    assert largest_gain_text(compared(best_setting=BEST)) == (
        "The largest of 8 gains: rank 64, +41 points measured. The largest of several owes part of its size to "
        "luck; without that part it is +36 points (95% interval +25 to +52, which holds for whichever setting comes out "
        "largest)."
    )
    assert "whichever adapter" in largest_gain_text(compared(best_setting=BEST | {"level": "adapters"}))


def test_without_a_choice_nothing_is_said() -> None:
    assert largest_gain_text(compared()) == largest_gain_text(compared(best_setting=BEST | {"k": 1})) == ""


def test_a_model_that_learned_nothing_is_not_called_worse() -> None:
    assert unlearned_texts(compared(learned_nothing=[NOTHING])) == {
        "llama-m": "llama-m learned nothing on running plan (3 settings at learning rate 0.001 and 0.01; largest gain "
        "+1.0 points, −5.0 to +4.0), so this study does not show what the model can do once it has learned."
    }
    open_question = NOTHING | {"code": "no_gain_shown"}
    (text,) = unlearned_texts(compared(learned_nothing=[open_question])).values()
    assert text.startswith("llama-m is not shown to have learned anything on running plan")
