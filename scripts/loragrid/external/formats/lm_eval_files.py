"""lm-eval's files: results in the current and the older format, and the items of --log_samples."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from loragrid.external.comparability import TASK_HASH
from loragrid.external.runs import ExternalRun, ExternalScore, ScoreKey, is_number

NOT_METRICS = ("alias", "sample_len", "sample_count", "name")
# At the end of the names of lm-eval's files.
DATE = r"\d{4}-\d\d-\d\dT[\d.-]+"
# An item's metrics in files of versions that do not list them under "metrics".
OLDER_ITEM_METRICS = ("acc", "acc_norm", "exact_match")
# lighteval's names of tasks: leaderboard|arc:challenge|25, the last one or two numbers being shots and cuts.
TASK_WITH_SHOTS = re.compile(r"(.+\|[^|]*[^|\d])\|(\d+)(?:\|\d)?")
# A key of a task's configuration → the condition of its scores.
TASK_CONDITIONS = {
    "dataset_path": "evaluation data",
    "dataset_name": "subset of the evaluation data",
    "test_split": "split",
    "doc_to_text": "prompt",
    "generation_kwargs": "generation settings",
}


def is_sample(row: Any) -> bool:
    """Whether a line is an item of lm-eval's --log_samples."""
    return isinstance(row, dict) and "doc_id" in row and ("resps" in row or "filtered_resps" in row)


def add_results(content: dict[str, Any], run: ExternalRun, path: Path) -> str | None:
    """Add lm-eval results to a run; the reason if they hold no score.

    Keys are `"acc,none"` and `"acc_stderr,none"` in the current format, `"acc"` and `"acc_stderr"`
    in the older one. The scores of groups may be in a table of their own.
    """
    for table in (content["results"], content.get("groups")):
        for task, metrics in (table if isinstance(table, dict) else {}).items():
            _add_task(content, task, metrics, run)
    _add_groups(content.get("group_subtasks"), run)
    config = content.get("config")
    _add_model(config if isinstance(config, dict) else {}, run)
    run.files.append(path.name)
    return None if run.scores else "no numbers in its results"


def _add_task(content: dict[str, Any], task: str, metrics: Any, run: ExternalRun) -> None:
    named = TASK_WITH_SHOTS.fullmatch(task)
    for key, value in (metrics if isinstance(metrics, dict) else {}).items():
        metric, _, variant = key.partition(",")
        if not metric.endswith("_stderr") and metric not in NOT_METRICS and is_number(value):
            name = named[1] if named else task
            place, score = score_key(name, metric, variant), _score(content, metrics, task, key)
            # Results of another date, or with other shots, in the same folder.
            if place in run.scores and run.scores[place].value != score.value:
                run.replaced.add(place)
            run.scores[place] = score


def _add_groups(groups: Any, run: ExternalRun) -> None:
    # A task without parts is listed with an empty list of them.
    for group, tasks in (groups if isinstance(groups, dict) else {}).items():
        if isinstance(tasks, list) and tasks:
            run.groups[str(group)] = [str(task) for task in tasks if task != group]


def _score(content: dict[str, Any], metrics: dict[str, Any], task: str, key: str) -> ExternalScore:
    """The score under a key of a task's results, with all that the file states about it."""
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
        conditions=_conditions(content, task),
    )


def _conditions(content: dict[str, Any], task: str) -> dict[str, Any]:
    """How a task was measured, as far as the file says; what lm-eval leaves out when unused is "none"."""
    config = content.get("config")
    config = config if isinstance(config, dict) else {}
    own = _entry(content, "configs", task)
    own = own if isinstance(own, dict) else {}
    shots = _entry(content, "n-shot", task)
    named = TASK_WITH_SHOTS.fullmatch(task)
    if named:
        shots = int(named[2])
    if shots is None:
        shots = own.get("num_fewshot", config.get("num_fewshot"))
    template = content.get("chat_template")
    conditions = {
        "shots": shots,
        "chat template": _text_id(template) if template else "none",
        "system prompt": _text_id(content["system_instruction"]) if content.get("system_instruction") else "none",
        "task version": _entry(content, "versions", task),
        TASK_HASH: _entry(content, "task_hashes", task),
    }
    if "limit" in config:
        conditions["limit"] = "none" if config["limit"] is None else config["limit"]
    conditions |= {name: own[key] for key, name in TASK_CONDITIONS.items() if own.get(key) is not None}
    return {name: value for name, value in conditions.items() if value is not None}


def _text_id(text: Any) -> str:
    """A short text itself, of a longer one its beginning and a digest: two long ones may begin alike."""
    text = " ".join(str(text).split())
    if len(text) <= 30:
        return f"“{text}”"
    return f"“{text[:20]}…” ({hashlib.sha256(text.encode(errors='replace')).hexdigest()[:6]})"


def score_key(task: str, metric: str, variant: str) -> ScoreKey:
    """Task and metric.

    The variant (lm-eval's filter) is part of the metric's name unless it is the default one.
    """
    if variant in ("", "none"):
        return str(task), metric
    return str(task), f"{metric} {variant}"


def add_samples(path: Path, run: ExternalRun) -> str | None:
    """Add the items of a samples_TASK_DATE.jsonl: each metric that is a number or true or false per item.

    The reason if there is none.
    """
    task = re.sub(rf"_{DATE}$", "", path.stem.removeprefix("samples_"))
    found: dict[ScoreKey, dict[str, float]] = {}
    answers: dict[str, str] = {}
    prompts: dict[str, str] = {}
    # Line by line: every line holds the whole prompt, so the files are large.
    with path.open(encoding="utf-8") as lines:
        for row in map(json.loads, filter(str.strip, lines)):
            if not is_sample(row):
                return "lm-eval’s items mixed with other lines"
            # With the hash, so that items of two versions of a task are not paired.
            item = f"{row['doc_id']} {row.get('doc_hash', '')}"
            answers[f"{item} {row.get('filter', 'none')}"] = _digest(row)
            if row.get("prompt_hash"):
                prompts[item] = str(row["prompt_hash"])
            for metric in _item_metrics(row):
                value = row.get(metric)
                if is_number(value) or isinstance(value, bool):
                    key = score_key(task, metric, str(row.get("filter", "none")))
                    found.setdefault(key, {})[item] = float(value)
    run.items |= found
    run.answers[task] = answers
    run.prompts[task] = prompts
    run.files.append(path.name)
    return None if found else "no numbers in its items"


def _item_metrics(row: dict[str, Any]) -> list[str]:
    """The names of an item's metrics."""
    named = row.get("metrics")
    if isinstance(named, list) and named:
        return [name for name in named if isinstance(name, str)]
    return [name for name in OLDER_ITEM_METRICS if name in row]


def _digest(row: dict[str, Any]) -> str:
    """A digest of what the model answered to an item."""
    answer = row.get("resps", row.get("filtered_resps"))
    return hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()[:16]


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


def _add_model(config: dict[str, Any], run: ExternalRun) -> None:
    """Add model, revision and adapter from lm-eval's `model_args`, which are a text or a map."""
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        arguments = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    if not isinstance(arguments, dict):
        return
    names = {"model": "pretrained", "adapter": "peft", "revision": "revision"}
    run.settings |= {name: arguments[key] for name, key in names.items() if arguments.get(key)}
    if arguments.get("pretrained"):
        run.model_arguments = ",".join(f"{key}={value}" for key, value in sorted(arguments.items()))


def is_lm_eval(content: dict[str, Any]) -> bool:
    """Whether results are lm-eval's: tasks with their metrics, and beside them how they were measured."""
    beside = ("versions", "config", "n-shot", "higher_is_better", "n-samples", "configs", "config_general")
    values = list(content["results"].values())
    if any(is_number(value) for value in values):
        return False
    texts = [str(key) for metrics in values if isinstance(metrics, dict) for key in metrics]
    return any(key in content for key in beside) or len(content) == 1 or any("," in text for text in texts)
