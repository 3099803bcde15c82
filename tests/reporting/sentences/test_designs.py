"""Sentences on two settings together, on data sizes, and along runs."""

from types import SimpleNamespace

import pytest

from loragrid.reporting.sentences.along import along_sentence
from loragrid.reporting.sentences.interactions import axes_together, correction_text, interaction_finding, movements
from loragrid.reporting.sentences.learning_curves import curve_finding, tokens_text

UNITS = {"running_plan": "share", "world_facts": "share"}
COMPARED = SimpleNamespace(target="running_plan", unit="share", units=UNITS, higher_is_better=True)
CONTRAST = {"row": "64", "column": "0.1", "difference": 0.4, "low": 0.3, "high": 0.5, "detectable": 0.2}


FAMILIES = {"setting": {"target": 13, "retention": 13, "exploratory": 26}}


def pair(movement: dict, *, verdict: str = "better", best: tuple = (1, 0), **changes) -> dict:
    scores = {"scores": [[0.1, 0.2], [0.2, 0.1]], "best": list(best), "movement": movement}
    scores["contrasts"] = [CONTRAST | {"verdict": verdict}]
    known = {"rows_axis": "rank", "columns_axis": "learning_rate", "rows": ["16", "64"], "columns": ["1e-3", "0.1"]}
    known |= {"unequal_tokens": False, "seeds": 2, "families": FAMILIES, "tasks": {"running_plan": scores}}
    return known | changes


def test_the_best_value_moves() -> None:
    movement = {"code": "moves", "evidence": [["16", "0.1", "1e-3"], ["64", "1e-3", "0.1"]]}
    assert interaction_finding(pair(movement), COMPARED) == [
        "Proved: the best learning rate moves with the rank on running plan. At rank 16, 0.1 is better than 0.001; "
        "at rank 64, 0.001 is better than 0.1.",
        "An interaction is proved, so averages over rank and learning rate hide it: rank 64 with learning rate 0.1 "
        "differs by +40 points (+30 to +50) from what the two effects add up to.",
    ]


def test_axes_that_are_proved_to_matter_together_are_named_together() -> None:
    moves = {"code": "moves", "evidence": [["16", "0.1", "1e-3"], ["64", "1e-3", "0.1"]]}
    pairs = [pair(moves), pair({"code": "open"}, columns_axis="batch")]
    compared = SimpleNamespace(target="running_plan", summary={"interactions": pairs})
    assert axes_together(compared) == ["learning rate", "rank"]
    assert len(movements(compared)) == 1 and "moves with the rank" in movements(compared)[0]


@pytest.mark.parametrize(
    "movement, best, text",
    [
        (
            {"code": "stays", "best": "0.1"},
            (1, 1),
            "Proved not to move: learning rate 0.1 is the best of these at every rank on running plan.",
        ),
        (
            {"code": "open"},
            (1, 1),
            "Can’t tell whether the best learning rate moves with the rank on running plan. Measured, it is 0.1 at "
            "every rank, but not every difference in a row is proved.",
        ),
        (
            {"code": "open"},
            (1, 0),
            "Can’t tell whether the best learning rate moves with the rank on running plan. Measured, it is 0.1 at "
            "rank 16 and 0.001 at rank 64, but the differences within the rows do not prove it.",
        ),
        (
            {"code": "not_tested"},
            (None, None),
            "Whether the best learning rate moves with the rank was not tested on running plan: scores are missing.",
        ),
    ],
)
def test_it_stays_or_nobody_can_tell(movement: dict, best: tuple, text: str) -> None:
    found = interaction_finding(pair(movement, best=best, verdict="can't tell"), COMPARED)
    assert found[0] == text
    assert found[1] == (
        "No interaction is proved: the effects of rank and learning rate may simply add up (the tests find 20 points "
        "or more)."
    )


def test_one_seed_and_unequal_tokens_are_said() -> None:
    assert "have one seed, which says nothing of" in interaction_finding(pair({"code": "open"}, seeds=1), COMPARED)[-1]
    (only,) = interaction_finding(pair({"code": "open"}, unequal_tokens=True), COMPARED)
    assert only.startswith("Not tested: some of these runs trained on more tokens")
    assert correction_text(pair({"code": "open"})) == (
        "Tested beside the other comparisons: 13 on the main target, 13 on mean retention and 26 exploratory, of "
        "settings. Each family is corrected by itself."
    )
    assert correction_text(pair({"code": "open"}, families={})) == ""


def test_adapters_that_do_not_add_up_are_no_interaction_of_settings() -> None:
    text = interaction_finding(pair({"code": "open"}, verdict="adapters differ", seeds=1), COMPARED)[1]
    assert text.startswith("These adapters do not add up over rank and learning rate: rank 64 with")


CURVE = {"rows": [250.0, 2250.0], "seeds": [2, 2], "tokens": [80_000, 80_500], "equal_tokens": True}
FIT = {"code": "fitted", "a": [1.0, 0.9, 1.1], "b": [0.4, 0.3, 0.5], "c": [0.7, 0.5, 0.9]}
FIT |= {"at_largest": 1.18, "at_double": [1.11, 1.05, 1.17]}


def test_a_law_has_its_intervals_and_ends_where_it_was_measured() -> None:
    assert curve_finding(CURVE | {"fit": FIT}) == (
        "Over 250 to 2\u202f250 rows the held-out loss follows a + b · rows⁻ᶜ with c = 0.70 (0.50 to 0.90) and a floor "
        "a = 1.00 (0.900 to 1.10). By this law twice the rows (4\u202f500) would give 1.11 (1.05 to 1.17) instead of "
        "1.18; nothing beyond 2\u202f250 rows was measured."
    )
    open_fit = FIT | {"c": [0.7, -0.1, 1.5]}
    assert "The exponent’s interval reaches 0, so a fall is not proved." in curve_finding(CURVE | {"fit": open_fit})


def test_without_a_law_the_reason_is_named() -> None:
    assert "three or more sizes." in curve_finding(CURVE | {"fit": {"code": "too_few_sizes"}})
    assert "two or more seeds each" in curve_finding(CURVE | {"fit": {"code": "too_few_seeds"}})
    assert tokens_text(CURVE).startswith("All sizes trained on about 80\u202f250 tokens")
    assert "grow together" in tokens_text(CURVE | {"tokens": [10_000, 90_000], "equal_tokens": False})


def row(target: dict, retention: dict) -> dict:
    moments = [{"share": share, "tokens": share * 80_000} for share in (0.0, 0.25, 0.5, 1.0)]
    return {"run": "r", "level": "setting", "moments": moments, "target": target, "retention": retention}


@pytest.mark.parametrize(
    "target, retention, text",
    [
        (
            {"code": "stopped", "share": 0.25, "margin": 0.05, "most": 0.034},
            {"code": "falls", "share": 0.5, "before": 0.25, "lost": [-0.114, -0.148, -0.08]},
            "running plan stopped improving by 25% of the budget (20\u202f000 tokens): no later interval reaches a further "
            "gain of 5 points (the highest ends at +3.4 points); retention has fallen by 50% of the budget (40\u202f000 "
            "tokens): −11.4 points (−14.8 to −8.0); at 25% no fall is proved.",
        ),
        (
            {"code": "improving", "share": 0.5, "gained": [0.2, 0.1, 0.3]},
            {"code": "kept", "margin": 0.05},
            "running plan still improved at the end: +20 points (+10 to +30) since 50% of the budget (40\u202f000 tokens); "
            "retention stays within 5 points of the base at every share.",
        ),
        (
            {"code": "turned", "share": 0.5, "lost": [-0.2, -0.3, -0.1]},
            {"code": "not_measured"},
            "running plan was higher at 50% of the budget (40\u202f000 tokens) than at the end: −20 points (−30 to −10) "
            "since; retention was not measured.",
        ),
        (
            {"code": "no_gain"},
            {"code": "open", "lowest": -0.08},
            "no gain on running plan is proved at any share; can’t tell whether retention falls (its intervals reach down "
            "to −8.0 points).",
        ),
        (
            {"code": "open", "share": 0.5, "last": [-0.01, -0.07, 0.05]},
            {"code": "falls", "share": 1.0, "before": 0.0, "lost": [-0.2, -0.3, -0.1]},
            "can’t tell where running plan stops improving: from 50% of the budget (40\u202f000 tokens) to the end −1 point "
            "(−7 to +5); retention has fallen by the end: −20 points (−30 to −10).",
        ),
    ],
)
def test_along_a_run(target: dict, retention: dict, text: str) -> None:
    assert along_sentence(row(target, retention), COMPARED) == text
