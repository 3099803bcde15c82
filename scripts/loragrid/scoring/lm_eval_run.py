"""One lm-eval task run in process: aggregate metrics, a value for every item, and evidence of how answers ended."""

import json
import math
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from loragrid.runtime.atomic_files import sha256_json
from loragrid.scoring.lm_eval_tasks import Found, settings_of
from loragrid.scoring.task_results import TaskResult
from loragrid.scoring.text_measures import distinct

if TYPE_CHECKING:
    from loragrid.scoring.lm_eval_model import WatchedLM

# lm-eval's metrics whose per-item value is no number but has a meaning of its own once aggregated over that one item.
ONE_ITEM_AGGREGATES = ("word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score")
# Fields of lm-eval's stock tasks that hold what several questions are asked about (BoolQ, DROP, RACE, CoQA, MultiRC, SQuAD).
PASSAGE_FIELDS = ("passage", "article", "story", "paragraph", "context")
BOOTSTRAP_DRAWS = 1000  # only for metrics without a closed-form standard error; compare has its own tests


def run_task(lm: "WatchedLM", task: Found, *, limit: int | None) -> TaskResult:
    """Run one task (or group of tasks) on a model. Whatever lm-eval raises is passed on: the caller records it.

    The model's chat template is applied, except to tasks that ask nothing (an empty `doc_to_text`, as in BLiMP, where
    whole sentences are compared, or rolling perplexity): an empty user turn before a sentence would be scored instead.
    """
    from lm_eval.evaluator import evaluate

    tasks = task.loaded["tasks"]
    templated = not all(_asks_nothing(one) for one in tasks.values())
    lm.forget()
    # A rendered prompt holds its special tokens already; plain text gets those that the tokenizer puts before any text.
    lm.add_bos_token = False if templated else None
    _prepare(tasks.values())
    results = evaluate(
        lm=lm,
        task_dict=task.loaded,
        limit=limit,
        bootstrap_iters=BOOTSTRAP_DRAWS,
        log_samples=True,
        apply_chat_template=templated,
        fewshot_as_multiturn=True,
    )
    samples = results.pop("samples")
    items = [row for name, one in tasks.items() for row in _items(one, samples[name], len(tasks) > 1, lm)]
    metrics = _aggregates(task, results) | _evidence(items, lm)
    return TaskResult(
        items=items,
        primary_metric=_primary(task, metrics),
        metrics=metrics,
        notes=_notes(templated, items),
        lm_eval=_own_results(results, tasks, templated),
    )


def _asks_nothing(task: Any) -> bool:
    return task.OUTPUT_TYPE == "loglikelihood_rolling" or task.get_config("doc_to_text") == ""


def _prepare(tasks: Iterable[Any]) -> None:
    """What lm-eval's `simple_evaluate` does before `evaluate`: its default seeds, and no examples unless a task asks for some.

    `simple_evaluate` itself also describes the machine and asks the hub about the model, seconds per call.
    """
    import numpy
    import torch
    from langdetect import DetectorFactory
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    random.seed(DEFAULT_RANDOM_SEED)
    DetectorFactory.seed = DEFAULT_RANDOM_SEED  # IFEval asks it for the language of an answer, and it draws lots
    numpy.random.seed(DEFAULT_OTHER_SEED)
    torch.manual_seed(DEFAULT_OTHER_SEED)
    for task in tasks:
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _items(task: Any, samples: list[dict[str, Any]], several: bool, lm: "WatchedLM") -> list[dict[str, Any]]:
    """Rows of the per-item table: every metric of every document, and evidence where an answer was generated."""
    rows = []
    for sample in samples:
        row = {
            "item": f"{task.task_name}/{sample['doc_id']}" if several else str(sample["doc_id"]),
            "cluster": _cluster(task, sample["doc"]),
            "prompt_sha256": sha256_json([list(argument) for argument in sample["arguments"]]),
            "output": _output(task, sample),
        }
        for metric in sample["metrics"]:
            value = _number(task, metric, sample[metric])
            if value is not None:
                rows.append(row | {"metric": _metric_name(metric, sample["filter"]), "value": value})
        if sample["filter"] == samples[0]["filter"]:  # each filter lists all documents again
            rows += [row | {"metric": name, "value": value} for name, value in _watched(sample, lm).items()]
    return rows


def _cluster(task: Any, doc: dict[str, Any]) -> str:
    """A name that the documents on one passage share: a digest of the field that `metadata: {cluster_field: …}` in the task's
    file names (null: items stand alone), else of the stock tasks' passage; empty for a document without one."""
    metadata = task.get_config("metadata") or {}
    fields = PASSAGE_FIELDS
    if "cluster_field" in metadata:
        fields = (metadata["cluster_field"],) if metadata["cluster_field"] is not None else ()
        if fields and fields[0] not in doc:
            raise ValueError(f"cluster_field {fields[0]!r} is none of the document's fields: {', '.join(doc)}")
    found = next((doc[field] for field in fields if doc.get(field)), None)
    return "" if found is None else sha256_json(found)[:16]


def _metric_name(metric: str, filter_name: str) -> str:
    """lm-eval's "metric,filter", without the filter where there is none."""
    return metric if filter_name == "none" else f"{metric},{filter_name}"


def _number(task: Any, metric: str, value: Any) -> float | None:
    """A per-item value as a number; None for one that means nothing alone (F1 of a single answer)."""
    if isinstance(value, bool | int | float) or getattr(value, "ndim", None) == 0:
        return float(value)
    return float(task.aggregation()[metric]([value])) if metric in ONE_ITEM_AGGREGATES else None


def _output(task: Any, sample: dict[str, Any]) -> str:
    """What the model said: the generated text, or the most likely choice."""
    if task.OUTPUT_TYPE == "generate_until":
        return str(sample["resps"][0][0])
    if task.OUTPUT_TYPE == "multiple_choice":
        likelihoods = [response[0] for response in sample["filtered_resps"]]
        arguments = sample["arguments"][likelihoods.index(max(likelihoods))]
        return str(arguments[0] if task.multiple_input else arguments[1])
    return ""


def _watched(sample: dict[str, Any], lm: "WatchedLM") -> dict[str, float]:
    prompts = [argument[0] for argument in sample["arguments"]]
    found = lm.answers[prompts[0]][1].values() if prompts[0] in lm.answers else {}
    return found | ({"cut_prompt": float(any(prompt in lm.cut for prompt in prompts))} if lm.cut else {})


def _aggregates(task: Found, results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """lm-eval's aggregate metrics. A group without an aggregate of its own gets the mean over its tasks, no error given."""
    of_its_own = any("," in key for key in results["results"].get(task.name, {}))
    names = [task.name] if of_its_own else list(task.loaded["tasks"])
    found: dict[str, list[tuple[float, Any, Any]]] = {}
    for name in names:
        scores, directions = results["results"][name], results["higher_is_better"].get(name, {})
        for key, value in scores.items():
            metric, _, filter_name = key.partition(",")
            if filter_name and not metric.endswith("_stderr"):
                stderr = scores.get(f"{metric}_stderr,{filter_name}")
                row = (float(value), stderr if isinstance(stderr, float) else None, directions.get(metric, True))
                found.setdefault(_metric_name(metric, filter_name), []).append(row)
    return {
        metric: {
            "value": sum(value for value, _, _ in rows) / len(rows),
            "stderr": rows[0][1] if len(rows) == 1 else None,
            "higher_is_better": rows[0][2],
        }
        for metric, rows in found.items()
    }


def _evidence(items: list[dict[str, Any]], lm: "WatchedLM") -> dict[str, dict[str, Any]]:
    """Means of the evidence, and the variety of all answers together; marked as no score by a direction of None."""
    names = ("new_tokens", "stopped", "repetition", "special_tokens", "cut_prompt")
    found = {}
    for name in names:
        values = [row["value"] for row in items if row["metric"] == name]
        if values:
            found[name] = _mean_and_error(values)
    if lm.answers:
        variety = distinct([tokens for tokens, _ in lm.answers.values()])
        found["distinct_2"] = {"value": variety, "stderr": None, "higher_is_better": None}
    return found


def _mean_and_error(values: list[float]) -> dict[str, Any]:
    n, mean = len(values), math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values)
    return {"value": mean, "stderr": math.sqrt(spread / (n - 1) / n) if n > 1 else None, "higher_is_better": None}


def _primary(task: Found, metrics: dict[str, Any]) -> str:
    """The metric that stands for the task: `metadata: {primary_metric: …}` in its file, else its first."""
    for one in task.loaded["tasks"].values():
        named = (one.get_config("metadata") or {}).get("primary_metric")
        if named is not None:
            if named not in metrics:
                raise ValueError(f"primary_metric {named!r} is none of the task's metrics: {', '.join(metrics)}")
            return named
    return next(iter(metrics))


def _notes(templated: bool, items: list[dict[str, Any]]) -> tuple[str, ...]:
    notes = [] if templated else ["asked without the chat template: the task has no question"]
    cut = {row["item"] for row in items if row["metric"] == "cut_prompt" and row["value"]}
    if cut:
        total = len({row["item"] for row in items})
        notes.append(f"{len(cut)} of {total} prompts were longer than the model's context and cut on the left")
    return tuple(notes)


def _own_results(results: dict[str, Any], tasks: dict[str, Any], templated: bool) -> dict[str, Any]:
    """lm-eval's result JSON without paths, dates and machine, so that equal scores are equal bytes."""
    kept = {key: value for key, value in results.items() if key != "configs"}
    kept["configs"] = {name: settings_of(task) for name, task in tasks.items()}
    kept["chat_template_applied"] = templated
    return json.loads(json.dumps(kept, default=lambda value: getattr(value, "item", lambda: str(value))()))
