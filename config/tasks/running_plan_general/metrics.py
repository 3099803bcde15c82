"""Items and score of the general running-plan task, imported by lm-eval for the task file beside it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent


def load_items(*, file: str, **_metadata: Any) -> dict[str, Any]:
    """The items of `file`, a name beside this module, as the split `test`.

    lm-eval itself would look in the working directory.
    """
    from datasets import Dataset

    lines = (HERE / file).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}


def score_plan(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Adherence of the generated plan to the request in `doc`, each value 0 or 1.

    The keys are exact, weeks_right, days_right and race_named.
    """
    from loragrid.running_plans.reading import adherence

    request = SimpleNamespace(race=doc["race"], weeks=doc["weeks"], days_per_week=doc["days_per_week"])
    return adherence(request, results[0])
