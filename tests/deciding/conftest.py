"""Made-up studies with open questions, drawn directly into tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loragrid.deciding.compared_results import ComparedResults
from loragrid.study.study_file import Study
from tests.fixtures import synthetic
from tests.fixtures.drawn_studies import Truth, compared_results

# Tasks of the made-up studies: a target and, in some, one that a run may forget.
SCORING = {"target": ["running_plan"], "retention": [], "limit": 400}
AXES = {"learning_rate": [0.003, 0.01, 0.03], "rank": [4, 16, 64], "batch": None, "model": None, "seed": [1, 2]}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Study]:
    """Makes a study of two axes and one target task; keywords are axes, or sections such as `scoring`."""

    def make_study(grid: dict[str, Any] | None = None, scoring: dict[str, Any] | None = None, **axes: Any) -> Study:
        settings = {"axes": AXES | axes} | (grid or {})
        # What a further run costs depends on these, so they are pinned whatever the demo has.
        fixed = {"schedule": "linear", "budget": {"tokens": 120000}, "evaluations": 5}
        return synthetic.make_study(tmp_path, grid=settings, scoring=SCORING | (scoring or {}), base_case=fixed)

    return make_study


@pytest.fixture
def drawn(make: Callable[..., Study]) -> Callable[..., ComparedResults]:
    """Makes and judges such a study; `truth` holds the fields of `Truth`."""

    def draw(truth: dict[str, Any] | None = None, **changes: Any) -> ComparedResults:
        return compared_results(make(**changes), Truth(**{"seed": 1} | (truth or {})))

    return draw
