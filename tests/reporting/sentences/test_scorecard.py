"""Sentences on published findings."""

from types import SimpleNamespace

import pytest

from loragrid.comparing.literature.findings import load_findings
from loragrid.reporting.sentences.scorecard import why_text

COMPARED = SimpleNamespace(unit="share", axis=lambda axis: axis)
ROW = {"axis": "rank", "value": "64", "base_case_value": "16", "difference": 0.2, "verdict": "better"}
ROW |= {"low": 0.1, "high": 0.3}
LOST = {"difference": 0.124, "low": 0.05, "high": 0.2, "verdict": "better"}
METHOD_RATES = [{"value": "lora", "learning_rate": 0.1}, {"value": "full", "learning_rate": 0.001}]
BATCH = ROW | {"axis": "batch", "value": "4x8", "base_case_value": "2x4", "verdict": "can't tell"}


@pytest.mark.parametrize(
    "finding, why, text",
    [
        (
            "rank_matters_little",
            {"code": "not_varied", "axis": "rank"},
            "no two values of rank could be compared",
        ),
        (
            "rank_matters_little",
            {"code": "target_not_a_share"},
            "the main target is not a share of right answers, and the margin is in points",
        ),
        (
            "rank_matters_little",
            {"code": "differences", "rows": [ROW]},
            "rank 64 against 16: +20 points, better",
        ),
        (
            "rank_matters_little",
            {"code": "all_within_margin", "margin": 0.05, "row": ROW},
            "all differences lie within 5 points (interval +10 to +30 at rank 64)",
        ),
        (
            "rank_matters_little",
            {"code": "interval_beyond_margin", "margin": 0.05, "row": ROW},
            "the interval reaches beyond ±5 points (interval +10 to +30 at rank 64)",
        ),
        (
            "large_batches_hurt",
            {"code": "differences", "rows": [BATCH]},
            "batch 4×8 against 2×4: +20 points, can’t tell",
        ),
        (
            "large_batches_hurt",
            {"code": "proved_differences", "rows": [BATCH | {"verdict": "better"}]},
            "batch 4×8 against 2×4: +20 points, better (LoRA alone, and each at one learning rate)",
        ),
        (
            "large_batches_hurt",
            {"code": "not_compared", "row": {"reason": "unequal_training_tokens", "token_ratio": 4.0}},
            "its runs trained on 4 times the base case’s tokens",
        ),
        (
            "one_best_rate_at_every_rank",
            {"code": "needs_rates_at_each_value", "axis": "rank"},
            "this needs several learning rates at several values of rank (a factorial grid)",
        ),
        (
            "one_best_rate_at_every_rank",
            {"code": "needs_one_alpha", "axis": "rank"},
            "this needs one alpha at every rank; here alpha changes with it",
        ),
        (
            "one_best_rate_at_every_rank",
            {
                "code": "best_rates",
                "axis": "rank",
                "clear": False,
                "best": [{"value": 16, "learning_rate": 0.01}, {"value": 64, "learning_rate": 2e-4}],
            },
            "lowest held-out loss: 0.01 at rank 16 and 2e−4 at rank 64; the second best rates are too close",
        ),
        (
            "four_bits_are_enough",
            {"code": "needs_two_precisions"},
            "this needs one model in two precisions, scored on shares of right answers",
        ),
        (
            "four_bits_are_enough",
            {"code": "precision_kept", "margin": 0.05, "tasks": 3},
            "no loss of more than 5 points on any of 3 tasks",
        ),
        (
            "four_bits_are_enough",
            {"code": "precision_lost", "precisions": ["4bit"], "losses": [{"task": "world_facts", "difference": -0.1}]},
            "in 4bit: world facts −10 points",
        ),
        (
            "four_bits_are_enough",
            {"code": "precision_beyond_margin", "margin": 0.05, "task": "world_facts", "low": -0.2, "high": 0.1},
            "the interval reaches beyond −5 points (world facts −20 to +10)",
        ),
        (
            "forgets_less_than_full_tuning",
            {"code": "needs_methods", "methods": ["lora", "full"]},
            "this needs runs with LoRA and with full fine-tuning, all else equal, scored on retention tasks",
        ),
        (
            "ten_times_the_rate_of_full_tuning",
            {"code": "needs_rates_of_methods", "methods": ["lora", "full"]},
            "this needs three or more learning rates of LoRA and of full fine-tuning, all else equal",
        ),
        (
            "forgets_less_than_full_tuning",
            {"code": "methods_at_best_rates", "methods": ["lora", "full"], "rates": [0.01, 1e-4], **LOST},
            "mean retention of LoRA at 0.01 against full fine-tuning at 1e−4: +12 points (+5 to +20), better",
        ),
        (
            "ten_times_the_rate_of_full_tuning",
            {"code": "best_rate_at_edge", "axis": "method", "best": METHOD_RATES, "clear": True, "methods": ["lora"]},
            "lowest held-out loss: 0.1 at method lora and 0.001 at method full; of LoRA no rate beyond it was tried",
        ),
        (
            "large_batches_hurt",
            {"code": "needs_second_seed", "axis": "batch"},
            "each batch was trained under one seed: this needs a second one",
        ),
    ],
)
def test_why(finding: str, why: dict, text: str) -> None:
    assert why_text(why, load_findings()[finding], COMPARED) == text
