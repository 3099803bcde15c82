"""lm-eval's files: results in the current and the older format, and the items of --log_samples."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from loragrid.external.runs import ExternalRun, ExternalScore, ScoreKey, is_number

NOT_METRICS = ("alias", "sample_len")
# At the end of the names of lm-eval's files.
DATE = r"\d{4}-\d\d-\d\dT[\d.-]+"
# An item's metrics in files of versions that do not list them under "metrics".
OLDER_ITEM_METRICS = ("acc", "acc_norm", "exact_match")


def is_sample(row: Any) -> bool:
    """Whether a line is an item of lm-eval's --log_samples."""
    return isinstance(row, dict) and "doc_id" in row and ("resps" in row or "filtered_resps" in row)


def add_results(content: dict[str, Any], run: ExternalRun, path: Path) -> str | None:
    """Add lm-eval results to a run; the reason if they hold no score.

    Keys are `"acc,none"` and `"acc_stderr,none"` in the current format, `"acc"` and `"acc_stderr"`
    in the older one.
    """
    for task, metrics in content["results"].items():
        if not isinstance(metrics, dict):
            continue
        for key, value in metrics.items():
            metric, _, variant = key.partition(",")
            if not metric.endswith("_stderr") and metric not in NOT_METRICS and is_number(value):
                run.scores[score_key(task, metric, variant)] = _score(content, task, key)
    run.settings |= _model_arguments((content.get("config") or {}).get("model_args"))
    run.files.append(path.name)
    return None if run.scores else "no numbers in its results"


def _score(content: dict[str, Any], task: str, key: str) -> ExternalScore:
    """The score under a key of a task's results, with all that the file states about it."""
    metrics = content["results"][task]
    metric, _, variant = key.partition(",")
    suffix = f",{variant}" if variant else ""
    stderr = metrics.get(f"{metric}_stderr{suffix}")
    items = _entry(content.get("n-samples"), task, "effective")
    higher = _entry(content.get("higher_is_better"), task, metric)
    return ExternalScore(
        value=float(metrics[key]),
        # Some versions write "N/A" for a metric without a standard error.
        stderr=float(stderr) if is_number(stderr) else None,
        items=int(items) if is_number(items) else None,
        higher_is_better=higher if isinstance(higher, bool) else None,
    )


def score_key(task: str, metric: str, variant: str) -> ScoreKey:
    """Task and metric.

    The variant (lm-eval's filter) is part of the metric's name unless it is the default one.
    """
    if variant in ("", "none"):
        return str(task), metric
    return str(task), f"{metric} {variant}"


def add_samples(path: Path, run: ExternalRun) -> str | None:
    """Add the items of a samples_TASK_DATE.jsonl: each metric that is a number per item.

    The reason if there is none.
    """
    task = re.sub(rf"_{DATE}$", "", path.stem.removeprefix("samples_"))
    found: dict[ScoreKey, dict[str, float]] = {}
    # Line by line: every line holds the whole prompt, so the files are large.
    with path.open(encoding="utf-8") as lines:
        for row in map(json.loads, filter(str.strip, lines)):
            if not is_sample(row):
                return "lm-eval’s items mixed with other lines"
            # With the hash, so that items of two versions of a task are not paired.
            item = f"{row['doc_id']} {row.get('doc_hash', '')}"
            metrics = row.get("metrics") or [name for name in row if name in OLDER_ITEM_METRICS]
            for metric in metrics:
                if is_number(row.get(metric)):
                    key = score_key(task, metric, str(row.get("filter", "none")))
                    found.setdefault(key, {})[item] = float(row[metric])
    run.items |= found
    run.files.append(path.name)
    return None if found else "no numbers in its items"


def add_item_means(run: ExternalRun) -> None:
    """Add the mean of the items as a score for each metric that no result file gave."""
    for key, items in run.items.items():
        values = np.array(list(items.values()))
        if key not in run.scores and len(values) > 1:
            stderr = float(values.std(ddof=1) / len(values) ** 0.5)
            run.scores[key] = ExternalScore(float(values.mean()), stderr, len(values))


def _entry(table: Any, task: str, name: str) -> Any:
    """`table[task][name]`, None if the table has no such entry or another shape."""
    for key in (task, name):
        # These files come from anywhere.
        if not isinstance(table, dict):
            return None
        table = table.get(key)
    return table


def _model_arguments(arguments: Any) -> dict[str, Any]:
    """Model and adapter from lm-eval's `model_args`, which are a text or a map."""
    if isinstance(arguments, str):
        arguments = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    if not isinstance(arguments, dict):
        return {}
    settings = {"model": arguments.get("pretrained"), "adapter": arguments.get("peft")}
    return {name: value for name, value in settings.items() if value}
