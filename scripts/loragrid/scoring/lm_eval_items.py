"""Rows of the per-item table from the samples that lm-eval logs."""

from typing import TYPE_CHECKING, Any

from loragrid.runtime.atomic_files import sha256_json

if TYPE_CHECKING:
    from loragrid.scoring.lm_eval_model import LmEvalModel

# lm-eval's metrics whose per-item value is not a number but becomes one by aggregation over that
# item alone.
ONE_ITEM_AGGREGATES = ("word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score")
# Fields of lm-eval's own tasks with a text that several questions share (BoolQ, DROP, RACE, CoQA,
# MultiRC, SQuAD).
PASSAGE_FIELDS = ("passage", "article", "story", "paragraph", "context")


def item_rows(task: Any, samples: list[dict[str, Any]], lm: "LmEvalModel", *, in_group: bool) -> list[dict[str, Any]]:
    """Rows of the per-item table: every document's metrics and, if generated, its answer's measures.

    `in_group`: the task is one of several in a group, so its name becomes part of the items' names.
    """
    rows = []
    for sample in samples:
        item = str(sample["doc_id"])
        row = {
            "item": f"{task.task_name}/{item}" if in_group else item,
            "cluster": cluster_name(task, sample["doc"]),
            "prompt_sha256": sha256_json([list(argument) for argument in sample["arguments"]]),
            "output": _output(task, sample),
        }
        for metric in sample["metrics"]:
            value = _number(task, metric, sample[metric])
            if value is not None:
                rows.append(row | {"metric": metric_name(metric, sample["filter"]), "value": value})
        # Each filter lists all documents again; the answer is the same.
        if sample["filter"] == samples[0]["filter"]:
            rows += [row | {"metric": name, "value": value} for name, value in _answer_values(sample, lm).items()]
    return rows


def cluster_name(task: Any, doc: dict[str, Any]) -> str:
    """A name shared by the documents on one passage; empty for a document of its own.

    It is a digest of the field that `metadata: {cluster_field: …}` in the task's file names (null:
    every item is its own), else of the first of `PASSAGE_FIELDS` that the document has.
    """
    metadata = task.get_config("metadata") or {}
    fields = PASSAGE_FIELDS
    if "cluster_field" in metadata:
        field = metadata["cluster_field"]
        if field is not None and field not in doc:
            raise ValueError(f"cluster_field {field!r} is none of the document's fields: {', '.join(doc)}")
        fields = () if field is None else (field,)
    for field in fields:
        if doc.get(field):
            return sha256_json(doc[field])[:16]
    return ""


def metric_name(metric: str, filter_name: str) -> str:
    """lm-eval's "metric,filter", or just the metric if there is no filter."""
    if filter_name == "none":
        return metric
    return f"{metric},{filter_name}"


def _number(task: Any, metric: str, value: Any) -> float | None:
    """A per-item value as a number; None if it means nothing for one item (F1 of one answer)."""
    if isinstance(value, bool | int | float) or getattr(value, "ndim", None) == 0:
        return float(value)
    if metric in ONE_ITEM_AGGREGATES:
        return float(task.aggregation()[metric]([value]))
    return None


def _output(task: Any, sample: dict[str, Any]) -> str:
    """The generated text, or the most likely choice."""
    if task.OUTPUT_TYPE == "generate_until":
        return str(sample["resps"][0][0])
    if task.OUTPUT_TYPE == "multiple_choice":
        likelihoods = [response[0] for response in sample["filtered_resps"]]
        arguments = sample["arguments"][likelihoods.index(max(likelihoods))]
        return str(arguments[0] if task.multiple_input else arguments[1])
    return ""


def _answer_values(sample: dict[str, Any], lm: "LmEvalModel") -> dict[str, float]:
    """Measures of a document's answer and, if the task has any cut prompt, whether this one was."""
    prompts = [argument[0] for argument in sample["arguments"]]
    values = {}
    if prompts[0] in lm.answers:
        _, measures = lm.answers[prompts[0]]
        values |= measures.values()
    if lm.cut:
        values["cut_prompt"] = float(any(prompt in lm.cut for prompt in prompts))
    return values
