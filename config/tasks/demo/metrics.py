"""What the demo's lm-eval tasks need beside their YAML: their items, wherever the working directory is, and a plan's score."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent


def load_items(*, file: str, **_metadata: Any) -> dict[str, Any]:
    """The items of `file` beside this module, as the split `test`. lm-eval resolves a `data_files` path against the
    working directory; this does not depend on it. It also passes the task's metadata, which is not needed here."""
    from datasets import Dataset

    return {
        "test": Dataset.from_list([json.loads(line) for line in (HERE / file).read_text(encoding="utf-8").splitlines()])
    }


def score_plan(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Adherence of the generated plan to the request in `doc`: exact, weeks_right, days_right, race_named, each 0 or 1."""
    from loragrid.running_plans.reading import adherence

    request = SimpleNamespace(race=doc["race"], weeks=doc["weeks"], days_per_week=doc["days_per_week"])
    return adherence(request, results[0])
