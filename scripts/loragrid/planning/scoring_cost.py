"""What scoring one subject costs: tokens that are only read, and answers that are written token by token. Imports no torch."""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from loragrid.models.flops import forward_per_token
from loragrid.models.shape import Shape
from loragrid.paths import ROOT
from loragrid.study.sections import Scoring
from loragrid.study.tasks import HELDOUT_LOSS, item_limit, items_file, read_task, task_file

SIZES = ROOT / "config" / "task_sizes.yaml"
# ASSUME: writing a token takes 2.5 ms per layer whatever the batch: a pass over a small batch waits for the launch of its
# kernels, not for arithmetic. And loading the model, its libraries and tasks takes a minute.
WRITE_SECONDS_PER_LAYER = 0.0025
LOAD_SECONDS = 60
BYTES_PER_TOKEN = 4  # of English text; the tokenizer need not be there
TEMPLATE_TOKENS = 30


@dataclass(frozen=True, kw_only=True)
class TaskSize:
    """What a task asks. `items` after the study's limit; None where the file does not tell."""

    items: int | None
    requests: int
    request_tokens: float
    answer_tokens: int
    share: bool = True  # its score is one of right answers

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of a share of right answers at its widest (binomial at one half), as a share."""
        return 1.96 * math.sqrt(0.25 / self.items) if self.items and self.share else None


def task_sizes(scoring: Scoring) -> dict[str, TaskSize | None]:
    """Task → its size, None where neither config/task_sizes.yaml nor a task file tells it; held-out loss left out."""
    sizes: dict[str, TaskSize | None] = {}
    for name in scoring.tasks:
        if name == HELDOUT_LOSS:
            continue
        size = _stock().get(name) or _from_file(task_file(name))
        most = item_limit(scoring.limit, name)
        if size is not None and most is not None:
            size = size | {"items": min(most, size["items"] or most)}
        sizes[name] = None if size is None else TaskSize(**size)
    return sizes


def scoring_seconds(
    shape: Shape, *, scoring: Scoring, heldout_rows: int, row_tokens: float, tflops: float
) -> dict[str, float | None]:
    """Seconds by task, with `heldout_loss`, `answers` (the side-by-side prompts) and `loading`; None for an unknown size."""
    seconds: dict[str, float | None] = {}
    for name, size in task_sizes(scoring).items():
        seconds[name] = None if size is None or size.items is None else _task_seconds(shape, size, scoring, tflops)
    if HELDOUT_LOSS in scoring.tasks:
        per_token = forward_per_token(shape, row_tokens=row_tokens)
        seconds[HELDOUT_LOSS] = heldout_rows * row_tokens * per_token / (tflops * 1e12)
    if scoring.qualitative is not None:
        seconds["answers"] = _answers_seconds(shape, Path(scoring.qualitative), scoring.batch_size)
    return seconds | {"loading": LOAD_SECONDS}


def _task_seconds(shape: Shape, size: TaskSize, scoring: Scoring, tflops: float) -> float:
    read = size.items * size.requests * size.request_tokens * forward_per_token(shape, row_tokens=size.request_tokens)
    batches = math.ceil(size.items * size.requests / scoring.batch_size)
    return read / (tflops * 1e12) + batches * size.answer_tokens * shape.layers * WRITE_SECONDS_PER_LAYER


def _answers_seconds(shape: Shape, file: Path, batch_size: int) -> float:
    """Both wordings of each prompt, longest answers first, each up to twice its reference (loragrid/scoring/answers.py)."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    caps = sorted((2 * len(row["reference"]) / BYTES_PER_TOKEN + 16 for row in lines for _ in range(2)), reverse=True)
    return sum(caps[::batch_size]) * shape.layers * WRITE_SECONDS_PER_LAYER


@cache
def _stock() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(SIZES.read_text(encoding="utf-8"))


def _from_file(file: Path | None) -> dict[str, Any] | None:
    """The size of a task of one's own, from its YAML and the item file that it names beside itself."""
    named = items_file(file) if file is not None else None
    if named is None:
        return None
    task, lines = read_task(file), named.read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines if line.strip()]
    choices = items[0].get("choices") if items else None
    generated = task.get("output_type") == "generate_until"
    asked = [str(item.get("prompt") or item.get("question") or item) for item in items]
    return {
        "items": len(items),
        "requests": len(choices) if isinstance(choices, list) and not generated else 1,
        "request_tokens": TEMPLATE_TOKENS + sum(map(len, asked)) / max(1, len(asked)) / BYTES_PER_TOKEN,
        "answer_tokens": (task.get("generation_kwargs") or {}).get("max_gen_toks", 256) if generated else 0,
        "share": task.get("output_type") != "loglikelihood",
    }
