"""Sentences on causes: every code of compare has a sentence with the right numbers."""

import ast
from pathlib import Path

import pytest

from loragrid.comparing import diagnosing
from loragrid.formatting import number
from loragrid.reporting.sentences.causes import CAUSE_NAMES, WORDINGS, cause_texts, unmade_text

UNITS = {"running_plan": "share", "world_facts": "share", "text_loss": "plain"}
MARGIN = {"nats": 0.0026, "made_of": "share_of_win", "share": 0.05, "to_win": 0.052}


def test_every_cause_and_evidence_of_compare_has_words() -> None:
    """The codes in the sources of compare's modules are those of the page."""
    found, names = set(), set()
    for module in Path(diagnosing.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Cause":
                cause, evidence = node.args[:2]
                found.add(evidence.value)
                names |= {cause.value} if isinstance(cause, ast.Constant) else set()
    assert found == WORDINGS.keys()
    assert names <= CAUSE_NAMES.keys()
    assert "noise" not in CAUSE_NAMES, "what is not proved is an open question and no cause"


def text(cause: str, evidence: str, measured: dict, threshold: dict | None = None) -> tuple[str, str]:
    found = {"cause": cause, "evidence": evidence, "measured": measured, "threshold": threshold or {}}
    (made,) = cause_texts([found | {"symptom_of": None}], UNITS)
    assert made.cause == cause and made.name == CAUSE_NAMES[cause] and made.symptom_of == ""
    return made.evidence, made.threshold


def test_a_rate_too_high() -> None:
    measured = {"loss": 2.958, "learning_rate": 0.1, "best_loss": 0.1124, "best_learning_rate": 2e-4}
    assert text("rate_too_high", "loss_above_other_rate", measured | {"times_as_far": 163.6}, MARGIN) == (
        "held-out loss 2.96 at learning rate 0.1, but 0.112 at 2e−4; the adapter moved 164 times as far",
        "above a run that differs only in the learning rate by more than 0.0026 nats, "
        "5% of the 0.052 that there were to win",
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
    assert threshold == (
        "while training loss falls, a rise of more than 0.0026 nats, 5% of the 0.052 that there were to win"
    )
    evidence, _ = text("overfitted", "heldout_turned_up", measured | {"epochs": 0.5}, MARGIN)
    assert evidence.endswith("0.300")


@pytest.mark.parametrize(
    "margin, words",
    [
        (
            {"nats": 0.0093, "made_of": "seeds", "seed_sd": 0.0033},
            "what two seeds of one setting differ by (SD 0.0033 each)",
        ),
        ({"nats": 0.002, "made_of": "noise"}, "the noise of a measurement"),
        (
            {"nats": 0.078, "made_of": "share_of_loss", "loss_share": 0.03, "loss_nats": 0.02},
            "3% of the loss, or 0.02 if that is more",
        ),
    ],
)
def test_a_margin_says_what_it_is_made_of(margin: dict, words: str) -> None:
    _, threshold = text("diverged", "heldout_rose", {"untrained": 2.6, "last": 4.0}, margin)
    assert threshold == f"a rise of more than {number(margin['nats'], 2)} nats, {words}"


def test_forgetting_is_the_mean_with_its_tasks() -> None:
    tasks = [{"task": "world_facts", "difference": -0.51}, {"task": "text_loss", "difference": 0.2}]
    measured = {"difference": -0.14, "low": -0.2, "high": -0.08, "seeds": 3, "tasks": tasks}
    evidence, threshold = text("forgot", "retention_lost", measured)
    assert evidence == (
        "mean retention −14 points (−20 to −8; mean of 3 seeds): world facts −51 points and text loss +0.200"
    )
    assert threshold == "a proved loss of the setting on mean retention"
    evidence, _ = text("forgot", "retention_lost", measured | {"tasks": tasks[:1]})
    assert evidence.endswith("3 seeds)"), "the mean of one task is that task"


def test_progress_is_told_in_nats_too() -> None:
    measured = {"share": 0.146, "late": 0.0073, "fall": 0.05}
    evidence, threshold = text("under_trained", "late_progress", measured, {"last_part": 0.2, "share": 0.1})
    assert evidence == "15% of the fall in held-out loss came in the last 20% of the tokens (0.0073 of 0.050 nats)"
    assert threshold == "10% or more"


def test_a_run_that_won_little() -> None:
    measured = {"first": 2.6, "last": 2.53, "to_win": 1.5}
    assert text("rate_too_low", "barely_won", measured, {"share": 0.1}) == (
        "held-out loss fell only from 2.60 to 2.53",
        "less than 10% of the 1.5 nats that another run won",
    )


def test_a_symptom_names_its_cause() -> None:
    found = {"cause": "template", "evidence": "answers_not_ended", "threshold": {"share": 0.5}}
    found |= {"measured": {"task": "running_plan", "share": 0.0, "base": 1.0}, "symptom_of": "rate_too_high"}
    (made,) = cause_texts([found], UNITS)
    assert made.symptom_of == "follows from: learning rate too high"


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
