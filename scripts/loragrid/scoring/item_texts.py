"""The texts of a task's items as lm-eval asks them, without template, examples and description."""

from collections.abc import Iterator
from typing import Any

from loragrid.scoring.lm_eval_tasks import StudyTask


def item_texts(task: StudyTask) -> dict[str, tuple[str, ...]]:
    """The name of each item that is scored, as in items.parquet → its text with each of its answers.

    Exceptions of the task pass through.
    """
    tasks = task.loaded["tasks"]
    found = {}
    for one in tasks.values():
        prefix = f"{one.task_name}/" if len(tasks) > 1 else ""
        for number, doc in one.doc_iterator(limit=task.limit):
            found[f"{prefix}{number}"] = tuple(dict.fromkeys(_texts(one, doc)))
    return found


def _texts(task: Any, doc: Any) -> Iterator[str]:
    """The question with each answer that is scored, or with each reference of a generated answer."""
    # Of a task like Winogrande the choices are questions of their own.
    asks_choices = getattr(task, "multiple_input", False)
    question = task.doc_to_choice(doc) if asks_choices else task.doc_to_text(doc)
    requests = task.construct_requests(doc=doc, ctx=question, metadata=(None, None, 1))
    if not isinstance(requests, list):
        requests = [requests]
    arguments = [[part for part in request.args if isinstance(part, str)] for request in requests]
    if any(parts[0].strip() for parts in arguments):
        # Some metrics also ask for each answer without its question.
        arguments = [parts for parts in arguments if parts[0].strip()]
    if task.OUTPUT_TYPE != "generate_until":
        yield from (" ".join(parts) for parts in arguments)
        return
    target = task.doc_to_target(doc)
    references = target if isinstance(target, list) else [target]
    # A task that scores answers by its own rules has no reference, or a number in its place.
    for reference in [text for text in references if isinstance(text, str)] or [""]:
        yield f"{question} {reference}"
