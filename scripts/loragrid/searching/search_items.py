"""The items of a task that a search chooses by: those that the final scores do not use."""

from collections.abc import Sequence
from typing import Any

from loragrid.errors import UserError
from loragrid.runtime.atomic_files import sha256_json
from loragrid.scoring.lm_eval_items import cluster_name
from loragrid.scoring.lm_eval_tasks import StudyTask


def search_items(task: StudyTask, *, where: str) -> dict[str, list[int]]:
    """Name of each of lm-eval's tasks → places of its items after the first `task.limit`.

    They are at most as many as the limit. Items that repeat a request or a passage of an item that
    is scored are left out. `where`: file and key, for the `UserError` if a task has no item left.
    """
    return {name: _unused(name, one, task.limit, where=where) for name, one in task.loaded["tasks"].items()}


def _unused(name: str, task: Any, limit: int | None, *, where: str) -> list[int]:
    documents = [doc for _, doc in task.doc_iterator(limit=None)]
    most = len(documents) if limit is None else limit
    scored = {key for doc in documents[:most] for key in _keys(task, doc)}
    rest = range(most, len(documents))
    unused = [place for place in rest if scored.isdisjoint(_keys(task, documents[place]))]
    if not unused:
        raise UserError(f"{where}: {_why_none(name, documents, rest)}")
    return unused[:most]


def _why_none(name: str, documents: Sequence[Any], rest: range) -> str:
    problem = f"the final scores use all {len(documents)} items of {name}, so none is left to choose by"
    if rest:
        problem = f"the {len(rest)} items of {name} after scoring.limit repeat requests of those before it"
    fix = f"lower scoring.limit for {name}, which leaves the items after it to the search, or use validation_loss"
    return f"{problem}. Fix: {fix}."


def _keys(task: Any, doc: Any) -> list[str]:
    """Digest of the item's request, and the name of its passage if it has one."""
    # As lm-eval asks it: of a task like Winogrande the choices are questions of their own.
    question = task.doc_to_choice(doc) if getattr(task, "multiple_input", False) else task.doc_to_text(doc)
    requests = task.construct_requests(doc=doc, ctx=question, metadata=(None, None, 1))
    arguments = [list(request.args) for request in (requests if isinstance(requests, list) else [requests])]
    keys = [sha256_json([[part for part in parts if isinstance(part, str)] for parts in arguments])]
    passage = cluster_name(task, doc)
    return [*keys, f"passage {passage}"] if passage else keys
