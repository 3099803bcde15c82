"""Items and score of the rephrased prompts, imported by lm-eval for the task file beside it."""

import json
import math
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def load_items(*, file: str, **_metadata: Any) -> dict[str, Any]:
    """The prompts of `file`, a path relative to this folder, as the split `test`."""
    from datasets import Dataset

    lines = (HERE / file).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines if line.strip()])}


def score_reference(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Bits per byte of the reference answer: its negative log-likelihood per byte of UTF-8."""
    log_likelihood, _ = results[0]
    return {"reference_bits_per_byte": -log_likelihood / math.log(2) / len(doc["reference"].encode())}
