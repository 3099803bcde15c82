"""What lm-eval leaves: result files of today and before, and the items of --log_samples."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from loragrid.external.runs import ExternalRun, ExternalScore, ScoreKey, is_number

NOT_METRICS = ("alias", "sample_len")
DATE = r"\d{4}-\d\d-\d\dT[\d.-]+"  # at the end of the names of lm-eval's files


def is_sample(row: Any) -> bool:
    """Whether a line is an item of lm-eval's --log_samples."""
    return isinstance(row, dict) and "doc_id" in row and ("resps" in row or "filtered_resps" in row)


def add_results(content: dict[str, Any], run: ExternalRun, path: Path) -> str | None:
    """lm-eval results in today's form (`"acc,none"`, `"acc_stderr,none"`) and the older one (`"acc"`, `"acc_stderr"`)."""
    counts, directions = content.get("n-samples") or {}, content.get("higher_is_better") or {}
    for task, metrics in content["results"].items():
        for key, value in metrics.items() if isinstance(metrics, dict) else ():
            metric, _, variant = str(key).partition(",")
            if metric.endswith("_stderr") or not is_number(value) or metric in NOT_METRICS:
                continue
            stderr = metrics.get(f"{metric}_stderr,{variant}" if variant else f"{metric}_stderr")
            items = _entry(counts, task, "effective")
            higher = _entry(directions, task, metric)
            run.scores[score_key(task, metric, variant)] = ExternalScore(
                float(value),
                float(stderr) if is_number(stderr) else None,
                int(items) if is_number(items) else None,
                higher if isinstance(higher, bool) else None,
            )
    run.settings |= _model_arguments((content.get("config") or {}).get("model_args"))
    run.files.append(path.name)
    return None if run.scores else "its results hold no numbers"


def score_key(task: str, metric: str, variant: str) -> ScoreKey:
    """Task and metric; the variant (a filter's name) is part of the metric's name where there are several."""
    return str(task), metric if variant in ("", "none") else f"{metric} {variant}"


def add_samples(path: Path, run: ExternalRun) -> str | None:
    """Single items of a samples_TASK_DATE.jsonl: each metric that is a number per item. Read line by line: files are large,
    as every line holds the prompt."""
    task = re.sub(rf"_{DATE}$", "", path.stem.removeprefix("samples_"))
    found: dict[ScoreKey, dict[str, float]] = {}
    with path.open(encoding="utf-8") as lines:
        for row in map(json.loads, filter(str.strip, lines)):
            if not is_sample(row):
                return "mixes items of lm-eval with other lines"
            item = f"{row['doc_id']} {row.get('doc_hash', '')}"
            for metric in row.get("metrics") or [name for name in row if name in ("acc", "acc_norm", "exact_match")]:
                if is_number(row.get(metric)):
                    key = score_key(task, metric, str(row.get("filter", "none")))
                    found.setdefault(key, {})[item] = float(row[metric])
    run.items |= found
    run.files.append(path.name)
    return None if found else "its items hold no numbers"


def add_item_means(run: ExternalRun) -> None:
    """A score from its items where no result file gave it."""
    for key, items in run.items.items():
        values = np.array(list(items.values()))
        if key not in run.scores and len(values) > 1:
            stderr = float(values.std(ddof=1) / len(values) ** 0.5)
            run.scores[key] = ExternalScore(float(values.mean()), stderr, len(values))


def _entry(table: Any, task: str, name: str) -> Any:
    """`table[task][name]`, None where that is not there: these files come from anywhere."""
    row = table.get(task) if isinstance(table, dict) else None
    return row.get(name) if isinstance(row, dict) else None


def _model_arguments(arguments: Any) -> dict[str, Any]:
    """Model and adapter from lm-eval's `model_args`, text or map."""
    if isinstance(arguments, str):
        arguments = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    if not isinstance(arguments, dict):
        return {}
    return {name: arguments[key] for key, name in (("pretrained", "model"), ("peft", "adapter")) if arguments.get(key)}
