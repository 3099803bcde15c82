"""Loads a BLiMP set from ../shared/real, wherever the study is run from."""

import json
from pathlib import Path
from typing import Any

TASKS = Path(__file__).resolve().parents[3] / "shared" / "real" / "tasks"


def load(name: str, **_: Any) -> dict[str, Any]:
    """The 200 pairs of one set as lm-eval wants them: split → rows."""
    import datasets

    lines = (TASKS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}
