"""Cost of scoring one subject: tokens read in parallel, and answers written token by token.

Imports no torch.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from loragrid.models.batch_sizes import answers_on_cpu
from loragrid.models.flops import forward_per_token
from loragrid.models.shape import Shape
from loragrid.paths import ROOT
from loragrid.study.sections import HELDOUT_LOSS, Scoring
from loragrid.study.task_names import task_file
from loragrid.study.tasks import item_limit, items_file, read_task

SIZES = ROOT / "config" / "task_sizes.yaml"
# ASSUME: writing a token takes 2.5 ms per layer for any batch size, because a pass over a small
# batch is bound by launching its kernels, not by arithmetic.
WRITE_SECONDS_PER_LAYER = 0.0025
# ASSUME: on a CPU a step starts a layer's operations in 0.5 ms and reads all weights at 15 GB/s; its rows are computed
# at the rate of training. With this the demo's answers and those of SmolLM2-135M come within a factor of 1.5.
CPU_SECONDS_PER_LAYER, CPU_BYTES_PER_SECOND = 5e-4, 1.5e10
# ASSUME: loading the model, its libraries and the tasks takes a minute.
LOAD_SECONDS = 60
# Of English text: an estimate that needs no tokenizer.
BYTES_PER_TOKEN = 4
TEMPLATE_TOKENS = 30


@dataclass(frozen=True, kw_only=True)
class TaskSize:
    """Size of a task: its items after the study's limit (None if unknown) and tokens per request.

    `requests` are per item, `answer_tokens` at most; `share`: the score is a share of right answers.
    `units` counts the items that are independent, where items are known to share a passage or a request.
    """

    items: int | None
    requests: int
    request_tokens: float
    answer_tokens: int
    share: bool = True
    units: int | None = None

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of a share of right answers, as a share; None for other scores.

        Binomial at one half, where the interval is widest.
        """
        if not self.items or not self.share:
            return None
        return 1.96 * math.sqrt(0.25 / self.items)


def task_sizes(scoring: Scoring) -> dict[str, TaskSize | None]:
    """Task → its size, None if neither config/task_sizes.yaml nor a task file has it.

    The held-out loss is left out: its size is that of the data.
    """
    sizes: dict[str, TaskSize | None] = {}
    for name in scoring.tasks:
        if name == HELDOUT_LOSS:
            continue
        limit = item_limit(scoring.limit, name)
        size = _standard_tasks().get(name) or _size_from_file(task_file(name), limit)
        if size is not None and limit is not None:
            size = size | {"items": min(limit, size["items"] or limit)}
        sizes[name] = None if size is None else TaskSize(**size)
    return sizes


def scoring_seconds(
    shape: Shape, *, scoring: Scoring, heldout_rows: int, row_tokens: float, tflops: float, on_cpu: bool = False
) -> dict[str, float | None]:
    """Seconds by task, None for a task of unknown size; `scoring` may have other limits than the study's.

    Further keys: `heldout_loss`, `answers` (the side-by-side prompts) and `loading`.
    """
    writer = _Writer(shape, scoring.batch_size, tflops if on_cpu else None)
    seconds: dict[str, float | None] = {}
    for name, size in task_sizes(scoring).items():
        known = size is not None and size.items is not None
        seconds[name] = _task_seconds(size, writer, tflops) if known else None
    if HELDOUT_LOSS in scoring.tasks:
        per_token = forward_per_token(shape, row_tokens=row_tokens)
        seconds[HELDOUT_LOSS] = heldout_rows * row_tokens * per_token / (tflops * 1e12)
    if scoring.qualitative is not None:
        seconds["answers"] = _answers_seconds(Path(scoring.qualitative), writer)
    return seconds | {"loading": LOAD_SECONDS}


@dataclass(frozen=True)
class _Writer:
    """How answers are written: `batch_size` at a time on a GPU; on a CPU, whose rate is `cpu_tflops`, more."""

    shape: Shape
    batch_size: int
    cpu_tflops: float | None

    def rows(self, row_tokens: float) -> int:
        """How many answers are written together, with their prompts of so many tokens."""
        if self.cpu_tflops is None:
            return self.batch_size
        shape = self.shape
        row_bytes = 4 * 2 * shape.layers * shape.kv_heads * shape.head_dim * math.ceil(row_tokens)
        return answers_on_cpu(self.batch_size, row_bytes=row_bytes)

    def step_seconds(self, rows: float, row_tokens: float) -> float:
        """Seconds in which each of the rows gets a token."""
        shape = self.shape
        if self.cpu_tflops is None:
            return shape.layers * WRITE_SECONDS_PER_LAYER
        computed = rows * forward_per_token(shape, row_tokens=row_tokens) / (self.cpu_tflops * 1e12)
        return shape.layers * CPU_SECONDS_PER_LAYER + 4 * shape.parameters() / CPU_BYTES_PER_SECOND + computed


def _task_seconds(size: TaskSize, writer: _Writer, tflops: float) -> float:
    requests = size.items * size.requests
    per_token = forward_per_token(writer.shape, row_tokens=size.request_tokens)
    read_seconds = requests * size.request_tokens * per_token / (tflops * 1e12)
    whole = size.request_tokens + size.answer_tokens
    batches = math.ceil(requests / writer.rows(whole))
    return read_seconds + batches * size.answer_tokens * writer.step_seconds(requests / max(1, batches), whole)


def _answers_seconds(prompts_file: Path, writer: _Writer) -> float:
    """Seconds for both wordings of each prompt, in batches with the longest answers first.

    An answer may be twice as long as its reference, plus 16 tokens (loragrid/scoring/answers.py).
    """
    lines = prompts_file.read_text(encoding="utf-8").splitlines()
    limits = []
    for line in lines:
        if line.strip():
            reference_tokens = len(json.loads(line)["reference"]) / BYTES_PER_TOKEN
            limits += [2 * reference_tokens + 16] * 2
    limits.sort(reverse=True)
    # A batch takes as long as its longest answer, which is the first of each.
    whole = TEMPLATE_TOKENS + max(limits, default=0)
    batches = limits[:: writer.rows(whole)]
    return sum(batches) * writer.step_seconds(len(limits) / max(1, len(batches)), whole)


@cache
def _standard_tasks() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(SIZES.read_text(encoding="utf-8"))


@cache
def _size_from_file(file: Path | None, limit: int | None) -> dict[str, Any] | None:
    """The size of a study's own task, from its YAML file and the items file named there.

    `limit`, as `items` has it, cuts the items that `units` are counted of.
    """
    items_path = items_file(file) if file is not None else None
    if items_path is None:
        return None
    task = read_task(file)
    lines = items_path.read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines if line.strip()]
    generated = task.get("output_type") == "generate_until"
    choices = items[0].get("choices") if items else None
    requests = len(choices) if isinstance(choices, list) and not generated else 1
    questions = [str(item.get("prompt") or item.get("question") or item) for item in items]
    # As loragrid/scoring/lm_eval_items.py clusters them: by the named field, else by the request.
    shared = (task.get("metadata") or {}).get("cluster_field")
    clusters = questions if shared is None else [str(item.get(shared)) for item in items]
    mean_characters = sum(map(len, questions)) / max(1, len(questions))
    answer_tokens = 0
    if generated:
        # 256 is lm-eval's own default.
        answer_tokens = (task.get("generation_kwargs") or {}).get("max_gen_toks", 256)
    return {
        "items": len(items),
        "requests": requests,
        "request_tokens": TEMPLATE_TOKENS + mean_characters / BYTES_PER_TOKEN,
        "answer_tokens": answer_tokens,
        "share": task.get("output_type") != "loglikelihood",
        "units": len(set(clusters[:limit])),
    }
