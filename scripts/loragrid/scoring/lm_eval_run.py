"""One lm-eval task run in process: aggregate metrics, values per item, measures of answers."""

import dataclasses
import functools
import itertools
import json
import math
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from loragrid.scoring.lm_eval_items import item_rows, metric_name
from loragrid.scoring.lm_eval_tasks import StudyTask, task_settings
from loragrid.scoring.running_task import NOTHING_KEPT, RunningTask
from loragrid.scoring.task_results import TaskResult
from loragrid.scoring.text_measures import distinct

if TYPE_CHECKING:
    from loragrid.scoring.lm_eval_model import LmEvalModel

# Only for metrics without a closed-form standard error; the compare stage has its own tests.
BOOTSTRAP_DRAWS = 1000
# Measures of answers that are aggregated next to the scores.
ANSWER_MEASURES = ("new_tokens", "stopped", "repetition", "special_tokens", "cut_prompt")


def run_task(lm: "LmEvalModel", task: StudyTask, running: RunningTask = NOTHING_KEPT) -> TaskResult:
    """Run one task (or group of tasks) on a model; lm-eval's exceptions pass through.

    The model's chat template is applied, except to tasks without a question (BLiMP, which compares
    whole sentences, and rolling perplexity).
    """
    from lm_eval.evaluator import evaluate

    tasks = task.loaded["tasks"]
    # With a template, an empty user turn before each sentence would be scored too.
    templated = not all(_has_no_question(one) for one in tasks.values())
    lm.start_task(running)
    # A rendered prompt contains its special tokens; plain text gets those that the tokenizer adds
    # to any text.
    lm.add_bos_token = False if templated else None
    _prepare(tasks.values())
    _compile_templates_once()
    for one in tasks.values():
        _build_requests_once(one, key=(lm.tokenizer, lm.tokenizer.chat_template, templated, task.limit, task.places))
    results = evaluate(
        lm=lm,
        task_dict=task.loaded,
        limit=task.limit if task.places is None else None,
        samples=task.places,
        bootstrap_iters=BOOTSTRAP_DRAWS,
        log_samples=True,
        apply_chat_template=templated,
        fewshot_as_multiturn=True,
    )
    samples = results.pop("samples")
    items = []
    for name, one in tasks.items():
        items += item_rows(one, samples[name], lm, in_group=len(tasks) > 1)
    metrics = _aggregates(task, results) | _answer_metrics(items, lm)
    return TaskResult(
        items=items,
        primary_metric=_primary(task, metrics),
        metrics=metrics,
        notes=_notes(templated, items),
        lm_eval=_own_results(results, tasks, templated),
    )


def metric_directions(task: StudyTask) -> dict[str, bool]:
    """The metrics of a built task → whether higher is better; a group has those of all its tasks."""
    found: list[dict[str, bool]] = []
    for one in task.loaded["tasks"].values():
        directions = one.higher_is_better()
        # Each filter of the answers gives every metric once more.
        filters = [chain.name for chain in getattr(one, "_filters", [])] or ["none"]
        pairs = itertools.product(filters, one.aggregation())
        found.append({metric_name(metric, name): directions.get(metric, True) for name, metric in pairs})
    common = set(found[0]).intersection(*found)
    return {name: higher for name, higher in found[0].items() if name in common}


def _has_no_question(task: Any) -> bool:
    return task.OUTPUT_TYPE == "loglikelihood_rolling" or task.get_config("doc_to_text") == ""


def _prepare(tasks: Iterable[Any]) -> None:
    """Do what lm-eval's `simple_evaluate` does before `evaluate`: default seeds, and zero examples.

    `simple_evaluate` is not called because it also describes the machine and queries the hub,
    seconds per call.
    """
    import numpy
    import torch
    from langdetect import DetectorFactory
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    random.seed(DEFAULT_RANDOM_SEED)
    # IFEval detects the language of an answer with langdetect, which samples.
    DetectorFactory.seed = DEFAULT_RANDOM_SEED
    numpy.random.seed(DEFAULT_OTHER_SEED)
    torch.manual_seed(DEFAULT_OTHER_SEED)
    for task in tasks:
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _compile_templates_once() -> None:
    """Keep the compiled Jinja templates of tasks.

    lm-eval compiles a task's templates again for each item and field, which takes as long as a
    small model's log-likelihoods.
    """
    from lm_eval.utils import env

    if not hasattr(env.from_string, "cache_info"):
        env.from_string = functools.cache(env.from_string)


def _build_requests_once(task: Any, *, key: tuple) -> None:
    """Let lm-eval render a task's requests for the first of all models with the same `key`.

    Rendering takes as long as a small model's log-likelihoods; the examples are drawn with a fixed seed.
    """
    build = type(task).build_all_requests

    def build_or_copy(**settings: Any) -> None:
        made_for, requests = getattr(task, "kept_requests", (None, []))
        if made_for != key:
            build(task, **settings)
            requests = task._instances
            task.kept_requests = key, requests
        # Requests hold the answers to them.
        task._instances = [dataclasses.replace(request, resps=[], filtered_resps={}) for request in requests]

    task.build_all_requests = build_or_copy


def _aggregates(task: StudyTask, results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """lm-eval's aggregate metrics.

    A group without its own aggregate gets the mean over its tasks, without a standard error.
    """
    has_own = any("," in key for key in results["results"].get(task.name, {}))
    names = [task.name] if has_own else list(task.loaded["tasks"])
    found: dict[str, list[tuple[float, Any, Any]]] = {}
    for name in names:
        scores, directions = results["results"][name], results["higher_is_better"].get(name, {})
        for key, value in scores.items():
            metric, _, filter_name = key.partition(",")
            # Keys without a comma are not metrics ("name", "alias", "sample_len").
            if not filter_name or metric.endswith("_stderr"):
                continue
            stderr = scores.get(f"{metric}_stderr,{filter_name}")
            if not isinstance(stderr, float):
                stderr = None  # lm-eval writes "N/A"
            row = (float(value), stderr, directions.get(metric, True))
            found.setdefault(metric_name(metric, filter_name), []).append(row)
    return {
        metric: {
            "value": sum(value for value, _, _ in rows) / len(rows),
            "stderr": rows[0][1] if len(rows) == 1 else None,
            "higher_is_better": rows[0][2],
        }
        for metric, rows in found.items()
    }


def _answer_metrics(items: list[dict[str, Any]], lm: "LmEvalModel") -> dict[str, dict[str, Any]]:
    """Means of the answers' measures, and the variety of all answers together.

    Their `higher_is_better` is None, which marks them as measures and not scores.
    """
    found = {}
    for name in ANSWER_MEASURES:
        values = [row["value"] for row in items if row["metric"] == name]
        if values:
            found[name] = _mean_and_error(values)
    if lm.answers:
        variety = distinct([tokens for tokens, _ in lm.answers.values()])
        found["distinct_2"] = {"value": variety, "stderr": None, "higher_is_better": None}
    return found


def _mean_and_error(values: list[float]) -> dict[str, Any]:
    n, mean = len(values), math.fsum(values) / len(values)
    stderr = None
    if n > 1:
        squares = math.fsum((value - mean) ** 2 for value in values)
        stderr = math.sqrt(squares / (n - 1) / n)
    return {"value": mean, "stderr": stderr, "higher_is_better": None}


def _primary(task: StudyTask, metrics: dict[str, Any]) -> str:
    """The task's main metric: `metadata: {primary_metric: …}` in its file, else its first."""
    for one in task.loaded["tasks"].values():
        named = (one.get_config("metadata") or {}).get("primary_metric")
        if named is not None:
            if named not in metrics:
                raise ValueError(f"primary_metric {named!r} is none of the task's metrics: {', '.join(metrics)}")
            return named
    return next(iter(metrics))


def _notes(templated: bool, items: list[dict[str, Any]]) -> tuple[str, ...]:
    notes = []
    if not templated:
        notes.append("asked without the chat template: the task has no question")
    cut = {row["item"] for row in items if row["metric"] == "cut_prompt" and row["value"]}
    if cut:
        total = len({row["item"] for row in items})
        notes.append(f"{len(cut)} of {total} prompts were longer than the model's context and cut on the left")
    return tuple(notes)


def _own_results(results: dict[str, Any], tasks: dict[str, Any], templated: bool) -> dict[str, Any]:
    """lm-eval's result JSON without paths, dates and machine: equal scores give equal bytes."""
    kept = {key: value for key, value in results.items() if key != "configs"}
    kept["configs"] = {name: task_settings(task) for name, task in tasks.items()}
    kept["chat_template_applied"] = templated
    return json.loads(json.dumps(kept, default=_plain))


def _plain(value: Any) -> Any:
    """A NumPy number as Python's; anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)
