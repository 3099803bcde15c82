"""Published findings as pictures: the range that they say, and this study's numbers on it."""

import math
import re
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from loragrid.comparing.literature.findings import load_findings
from loragrid.reporting.figures.finding_marks import finding_marks
from loragrid.reporting.figures.finding_picture import finding_picture

ROW = {"axis": "rank", "value": "64", "base_case_value": "16", "difference": 0.02, "low": -0.01, "high": 0.5}
ROW |= {"task": "facts", "verdict": "can't tell", "level": "setting"}
BATCH = {"axis": "batch", "base_case_value": "2x4"}
MODULES = {"axis": "target_modules", "base_case_value": "all-linear"}
ROWS = [
    ROW,
    ROW | {"value": "32", "task": "sums"},
    ROW | {"value": "8", "level": "adapters"},
    ROW | {"value": "4", "verdict": ""},
    ROW | BATCH | {"value": "4x8"},
    ROW | BATCH | {"value": "1x2"},
    ROW | MODULES | {"value": "attention"},
    ROW | MODULES | {"value": "mlp"},
]
CONTROL = {"task": "arc_easy", "precision": "4bit", "unit": "share", "verdict": "can't tell"}
CONTROL |= {"difference": -0.01, "low": -0.03, "high": 0.01}


def compared(*, higher_is_better: bool = True) -> Any:
    return SimpleNamespace(
        axes=pd.DataFrame(ROWS),
        target="facts",
        unit="share",
        higher_is_better=higher_is_better,
        summary={"precision_controls": [CONTROL, CONTROL | {"verdict": ""}, CONTROL | {"unit": "plain"}]},
    )


def marks(finding: str, why: dict[str, Any], **changes: Any) -> list[tuple]:
    found = finding_marks(why, load_findings()[finding], compared(**changes))
    return [(mark.label, round(mark.value, 6), mark.said) for mark in found.marks]


DIFFERENCES = {"code": "differences", "rows": []}
UP, DOWN = (0, math.inf), (-math.inf, 0)


def test_the_values_of_an_axis_are_on_the_side_that_the_finding_says() -> None:
    assert marks("rank_matters_little", DIFFERENCES) == [("64 against 16", 0.02, (-0.05, 0.05))]
    batches = [("4×8 against 2×4", 0.02, DOWN), ("1×2 against 2×4", 0.02, UP)]
    assert marks("large_batches_hurt", DIFFERENCES) == batches
    flipped = [(label, value, UP if said == DOWN else DOWN) for label, value, said in batches]
    assert marks("large_batches_hurt", DIFFERENCES, higher_is_better=False) == flipped, "a larger loss is worse"
    assert marks("attention_alone_is_worse", DIFFERENCES) == [("attention against all-linear", 0.02, DOWN)]


def test_methods_rates_and_precisions() -> None:
    why = {"code": "methods_at_best_rates", "methods": ["lora", "full"], "difference": 0.1, "low": 0.0, "high": 0.2}
    assert marks("forgets_less_than_full_tuning", why) == [("LoRA against full fine-tuning", 0.1, UP)]
    best = [{"value": "lora", "learning_rate": 1e-3}, {"value": "full", "learning_rate": 1e-4}]
    (ratio,) = marks("ten_times_the_rate_of_full_tuning", {"code": "best_rates", "axis": "method", "best": best})
    assert ratio == ("ratio of the best rates", 10.0, (10 / 10**0.5, 10 * 10**0.5))
    best = [{"value": rank, "learning_rate": rate} for rank, rate in ((8, 1e-3), (16, 1e-3), (32, 1e-2))]
    assert marks("one_best_rate_at_every_rank", {"code": "best_rates", "axis": "rank", "best": best}) == [
        ("8", 1e-3, (1e-3, 1e-3)), ("16", 1e-3, (1e-3, 1e-3)), ("32", 1e-2, (1e-3, 1e-3)),
    ]  # fmt: skip
    assert marks("four_bits_are_enough", {"code": "precision_kept"}) == [("arc easy, 4bit", -0.01, (-0.05, math.inf))]


@pytest.mark.parametrize(
    "code", ["not_varied", "not_compared", "needs_second_seed", "target_not_a_share", "needs_two_precisions"]
)
def test_what_a_grid_could_not_test_has_no_picture(code: str) -> None:
    assert finding_marks({"code": code}, load_findings()["rank_matters_little"], compared()) is None


def test_a_picture_says_its_numbers_and_stays_within_its_edges() -> None:
    """The interval of the rank reaches far beyond the range, and leaves the picture with an arrow."""
    found = finding_marks(DIFFERENCES, load_findings()["rank_matters_little"], compared())
    picture = finding_picture(found)
    assert 'aria-label="64 against 16: +2 points (−1 to +50), said −5 to +5"' in picture
    assert picture.count('class="interval"') == 2, "the line and the arrow at its end"
    width = float(re.search(r'viewBox="0 0 (\d+)', picture)[1])
    assert all(0 <= float(x) <= width for x in re.findall(r'x="([\d.-]+)"', picture))
    low, high = (float(x) for x in re.search(r'class="said" x="([\d.]+)" y="16" width="([\d.]+)"', picture).groups())
    own = float(re.search(r'class="own".*?translate\(([\d.]+)', picture)[1])
    assert low < own < low + high, "two points are within five"
    assert ">+5<" in picture and ">0<" in picture


def test_a_range_that_is_one_rate_is_visible_and_many_values_are_cut() -> None:
    best = [{"value": rank, "learning_rate": 1e-3} for rank in range(1, 13)]
    why = {"code": "best_rates", "axis": "rank", "best": best}
    found = finding_marks(why, load_findings()["one_best_rate_at_every_rank"], compared())
    picture = finding_picture(found)
    assert picture.count('class="own"') == 8 and picture.endswith("</svg><small>and 4 more</small>")
    assert 'width="4"' in picture and "said 0.001" in picture and ">0.001<" in picture
