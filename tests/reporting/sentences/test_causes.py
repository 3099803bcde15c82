"""Sentences on causes: every code of compare has a sentence with the right numbers."""

import ast
from pathlib import Path

import pytest

from loragrid.comparing.diagnosing import causes, diagnoses, study_checks
from loragrid.reporting.sentences.causes import CAUSE_NAMES, WORDINGS, cause_texts, unmade_text

UNITS = {"running_plan": "share", "world_facts": "share", "text_loss": "plain"}
MARGIN = {"loss_share": 0.03, "loss_nats": 0.02}


def test_every_cause_and_evidence_of_compare_has_words() -> None:
    """The codes in the sources of compare's modules are those of the page."""
    found, names = set(), set()
    for module in (causes, diagnoses, study_checks):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Cause":
                cause, evidence = node.args[:2]
                found.add(evidence.value)
                names |= {cause.value} if isinstance(cause, ast.Constant) else set()
    assert found == WORDINGS.keys()
    assert names <= CAUSE_NAMES.keys()


def text(cause: str, evidence: str, measured: dict, threshold: dict | None = None) -> tuple[str, str]:
    found = {"cause": cause, "evidence": evidence, "measured": measured, "threshold": threshold or {}}
    (made,) = cause_texts([found], UNITS)
    assert made.cause == cause and made.name == CAUSE_NAMES[cause]
    return made.evidence, made.threshold


def test_a_rate_too_high() -> None:
    measured = {"loss": 2.958, "learning_rate": 0.1, "best_loss": 0.1124, "best_learning_rate": 2e-4}
    assert text("rate_too_high", "loss_above_other_rate", measured | {"times_as_far": 163.6}, MARGIN) == (
        "held-out loss 2.96 at learning rate 0.1, but 0.112 at 2e−4; the adapter moved 164 times as far",
        "more than 3% and 0.02 nats above a run that differs only in the learning rate",
    )
    evidence, _ = text("rate_too_high", "loss_above_other_rate", measured | {"times_as_far": None}, MARGIN)
    assert evidence.endswith("0.112 at 2e−4")


def test_repeated_rows_are_part_of_overfitting() -> None:
    measured = {"lowest": 1.4, "last": 1.9, "train_at_lowest": 0.6, "train_last": 0.3, "epochs": 6.0}
    evidence, threshold = text("overfitted", "heldout_turned_up", measured, MARGIN)
    assert evidence == (
        "held-out loss rose from its lowest, 1.40, to 1.90 while training loss fell from 0.600 to 0.300; "
        "each row was seen 6.0 times"
    )
    assert threshold == "a rise of more than 3% and 0.02 nats while training loss falls"
    evidence, _ = text("overfitted", "heldout_turned_up", measured | {"epochs": 0.5}, MARGIN)
    assert evidence.endswith("0.300")


def test_differences_have_their_tasks_unit_and_the_seeds() -> None:
    losses = [{"task": "world_facts", "difference": -0.51}, {"task": "text_loss", "difference": 0.2}]
    evidence, _ = text("forgot", "proved_losses", {"losses": losses, "seeds": 3})
    assert evidence == "world facts −51 points and text loss +0.200 (mean of 3 seeds)"
    measured = {"task": "running_plan", "difference": 0.01, "seeds": 1}
    assert text("noise", "difference_not_proved", measured, {"detectable": 0.19}) == (
        "no difference proved: running plan +1 point",
        "difference that the test finds reliably (see How sure): 19 points",
    )
    _, threshold = text("noise", "difference_not_proved", measured, {"detectable": None})
    assert threshold.endswith("none of any size")


@pytest.mark.parametrize("base, beside", [(1.0, " (base: 100%)"), (None, "")])
def test_a_base_without_answers_is_not_mentioned(base: float | None, beside: str) -> None:
    evidence, threshold = text(
        "template", "answers_not_ended", {"task": "running_plan", "share": 0.1, "base": base}, {"share": 0.5}
    )
    assert (evidence, threshold) == (f"10% of answers to running plan ended by themselves{beside}", "less than 50%")


@pytest.mark.parametrize("shared, verb", [(1, "is"), (3, "are")])
def test_shared_rows_are_counted(shared: int, verb: str) -> None:
    evidence, _ = text("leak", "rows_shared", {"shared": shared, "heldout_rows": 80})
    assert evidence == f"{shared} of 80 held-out rows {verb} also among the training rows, token for token"


def test_a_base_that_guesses() -> None:
    tasks = [{"task": "world_facts", "score": 0.26, "chance": 0.25}]
    evidence, _ = text("at_chance", "near_chance", {"tasks": tasks})
    assert evidence == "world facts 26% (guessing: 25%): nothing there can be forgotten"
    measured = {"loss": 2.6, "vocabulary": 4096, "uniform_loss": 8.3178}
    evidence, _ = text("broken_base", "near_uniform", measured, {"share_of_uniform": 0.9})
    assert evidence == "held-out loss of the base 2.60; guessing evenly among 4,096 tokens gives 8.32"


def test_checks_that_could_not_be_made() -> None:
    assert unmade_text({"checks": ["under_trained"], "measurements": 2}) == (
        "not checked for under-training: only 2 held-out measurements after training began"
    )
    assert unmade_text({"checks": ["overfitted", "under_trained"], "measurements": 1}) == (
        "not checked for overfitting and under-training: only 1 held-out measurement after training began"
    )
