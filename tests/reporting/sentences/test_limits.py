"""Sentences on rows without a test, on what is not compared, and on what else differs."""

import pytest

from loragrid.reporting.sentences.limits import caveat_sentence, not_comparable_sentence, reason_text


@pytest.mark.parametrize(
    "row, text",
    [
        ({"reason": float("nan")}, ""),
        ({}, ""),
        (
            {"reason": "too_few_clusters", "units": 5.0},
            "only 5 independent clusters of items in common, too few to prove any difference",
        ),
        (
            {"reason": "too_few_items", "units": 1},
            "only 1 independent item in common, too few to prove any difference",
        ),
        (
            {"reason": "unequal_training_tokens", "token_ratio": 3.8878},
            "its runs trained on 3.89 times the base case’s tokens",
        ),
        (
            {"reason": "loss_on_other_tokens"},
            "its losses are over different tokens (another tokenizer or chat template)",
        ),
        (
            {"reason": "no_score", "base": "b", "unscored": "b", "task": "world_facts"},
            "the base has no score on world facts",
        ),
        (
            {"reason": "no_score", "base": "b", "unscored": "r", "task": "world_facts"},
            "the run has no score on world facts",
        ),
        ({"reason": "no_score", "unscored": "r", "task": "world_facts"}, "r has no score on world facts"),
    ],
)
def test_reason(row: dict, text: str) -> None:
    assert reason_text(row) == text


def test_not_comparable() -> None:
    found = {"code": "loss_across_tokenizers", "models": ["gemma-s", "llama-s"]}
    assert not_comparable_sentence(found).startswith("Losses across gemma-s and llama-s: ")
    assert not_comparable_sentence(found | {"rows": 80, "rows_total": 80}).endswith(
        "The model axis compares them in bits per byte of the replies, on all 80 held-out rows."
    )
    assert not_comparable_sentence(found | {"rows": 78, "rows_total": 80}).endswith(
        "bits per byte of the replies, on the 78 of 80 held-out rows that all keep whole."
    )
    found = {"code": "unequal_training_tokens", "axis": "batch", "value": "4x8", "token_ratio": 0.5}
    assert not_comparable_sentence(found).startswith(
        "Batch 4×8 with the base case: its runs saw 0.50 times the base case’s tokens."
    )
    found = {"code": "training_loss_over_unequal_updates"}
    assert "training loss of runs with different numbers of updates" in not_comparable_sentence(found)


def test_caveats() -> None:
    assert "alpha changes with it" in caveat_sentence({"code": "alpha_moves_with_rank"})
    assert "alpha and the factor alpha/rank change" in caveat_sentence({"code": "alpha_and_factor_over_ranks"})
    assert "alpha is fixed" in caveat_sentence({"code": "alpha_fixed_over_ranks"})
    found = {"code": "runs_differ", "field": "machines", "distinct": 2}
    assert caveat_sentence(found).startswith("Runs from different machines (2 in all): ")
