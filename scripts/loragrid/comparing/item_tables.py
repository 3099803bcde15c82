"""The per-item values of all scored subjects: one table per task, aligned by item."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loragrid.errors import UserError, first_line
from loragrid.records.outcomes import Outcome
from loragrid.records.seal import check_sealed
from loragrid.study.sections import HELDOUT_LOSS

BITS_PER_BYTE = "bits_per_byte"
# The key of the held-out loss in bits per byte, beside those of the tasks.
LOSS_BY_BYTE = f"{HELDOUT_LOSS}:{BITS_PER_BYTE}"
# Metric → metric that weighs its items: a mean loss is per token or byte, so long rows count more.
WEIGHTS = {"loss": "loss_tokens", BITS_PER_BYTE: "target_bytes"}
# Between task and metric in a key: a control character that neither name can hold.
SEPARATOR = "\x1f"


@dataclass(frozen=True)
class ItemTable:
    """One task's items (n,) with every subject's values.

    `values` maps a subject to (n,) in the order of `items`, NaN where it lacks an item; `weights`
    likewise, or None. `clusters` (n,) names the passage that items share, or is None. `unit` is
    "share" for scores from 0 to 1, else "plain". `requests` (n,) names what the model was asked;
    items with one request are one cluster, because a greedy model answers them alike.
    """

    task: str
    group: str
    metric: str
    higher_is_better: bool
    items: np.ndarray
    values: dict[str, np.ndarray]
    weights: dict[str, np.ndarray] | None
    clusters: np.ndarray | None
    requests: np.ndarray
    unit: str
    binary: bool

    def weights_of(self, subject: str, mask: np.ndarray) -> np.ndarray | None:
        """The weights of a subject's items in `mask`; None if items count alike."""
        return None if self.weights is None else self.weights[subject][mask]

    def clusters_of(self, mask: np.ndarray) -> np.ndarray | None:
        """The clusters of the items in `mask`; None if each item is its own."""
        return None if self.clusters is None else self.clusters[mask]

    def requests_of(self, mask: np.ndarray) -> int:
        """The number of distinct requests among the items in `mask`."""
        return len(set(self.requests[mask]))


def load_items(results: Path, outcomes: list[Outcome]) -> dict[str, ItemTable]:
    """Task → table of its primary metric, in the study's order, for every task with a score.

    After them under `LOSS_BY_BYTE` the held-out loss in bits per byte, if any subject has it. Its
    items are rows of one text: a row of which two tokenizers kept different parts is two items.
    Raises `UserError` when an items file cannot be read or was changed, and when a subject was asked other prompts
    than its base.
    """
    scored = [outcome for outcome in outcomes if outcome.status == "scored"]
    found: dict[str, dict[str, Any]] = {}
    by_byte: dict[str, Any] = {"metric": BITS_PER_BYTE, "higher": False, "parts": {}}
    for outcome in scored:
        frame = _read_parquet(results / "score" / outcome.subject / "items.parquet")
        for task, score in outcome.score.tasks.items():
            if score.status != "scored" or score.primary_metric is None:
                continue
            metric = score.metrics[score.primary_metric]
            head = {"group": score.group, "metric": score.primary_metric, "higher": metric["higher_is_better"]}
            known = found.setdefault(task, {**head, "parts": {}})
            # A subject scored by another metric (an older record) cannot be compared on this task.
            if known["metric"] == score.primary_metric:
                known["parts"][outcome.subject] = _values(frame, task, score.primary_metric)
            if task == HELDOUT_LOSS and BITS_PER_BYTE in score.metrics:
                by_byte["parts"][outcome.subject] = _values_of_texts(frame)
                by_byte["group"] = score.group
    for task, known in found.items():
        _check_prompts(results, task, known["parts"], {outcome.subject: outcome.base for outcome in scored})
    if by_byte["parts"]:
        found[LOSS_BY_BYTE] = by_byte
    return {task: _table(task, **known) for task, known in found.items()}


def _check_prompts(results: Path, task: str, parts: dict[str, dict[str, Any]], bases: dict[str, str]) -> None:
    """Raise `UserError` if a subject was asked an item with another prompt than its base."""
    asked: dict[str, dict[Any, Any]] = {}
    for subject, part in parts.items():
        base = bases[subject]
        if base == subject or base not in parts or np.array_equal(part["requests"], parts[base]["requests"]):
            continue
        if base not in asked:
            asked[base] = dict(zip(parts[base]["items"], parts[base]["requests"]))
        others = [
            item
            for item, request in zip(part["items"], part["requests"])
            # A file from before there were digests of prompts has none.
            if request and asked[base].get(item) and asked[base][item] != request
        ]
        if others:
            folder = results / "score" / subject
            raise UserError(
                f"{folder / 'items.parquet'}: {len(others)} items of {task} were asked with another prompt than those "
                f"of its base {base} (the first is {others[0]}). Fix: delete {folder} and {results / 'score' / base}, "
                "and run snakemake again."
            )


def _read_parquet(path: Path) -> dict[str, Any]:
    """An items file as task and metric → (items, values, clusters, requests).

    The key joins the two by a separator. A file is read once per subject.
    """
    import pyarrow
    import pyarrow.parquet

    check_sealed(path)
    try:
        names = pyarrow.parquet.read_schema(path).names
        wanted = [name for name in ("task", "metric", "item", "value", "cluster", "prompt_sha256") if name in names]
        table = pyarrow.parquet.read_table(path, columns=wanted, use_threads=False)
        # pandas and pyarrow write `string` or `large_string`, by version; the two do not join.
        task, metric = (table.column(name).cast(pyarrow.string()) for name in ("task", "metric"))
        key = pyarrow.compute.binary_join_element_wise(task, metric, SEPARATOR)
        code = key.combine_chunks().dictionary_encode()
    except (OSError, pyarrow.ArrowException, KeyError) as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}). Fix: delete its folder and score again"
        ) from None
    item, value = table.column("item").to_numpy(zero_copy_only=False), table.column("value").to_numpy()
    cluster, request = (
        table.column(name).to_numpy(zero_copy_only=False) if name in wanted else np.full(len(item), None)
        for name in ("cluster", "prompt_sha256")
    )
    indices, keys = code.indices.to_numpy(), code.dictionary.to_pylist()
    # One sort instead of a filter per task and metric: a large suite has hundreds of them.
    order = np.argsort(indices, kind="stable")
    bounds = np.searchsorted(indices[order], np.arange(len(keys) + 1))
    parts = {}
    for number, key in enumerate(keys):
        rows = order[bounds[number] : bounds[number + 1]]
        parts[key] = (item[rows], value[rows], cluster[rows], request[rows])
    return parts


def _values(frame: dict[str, Any], task: str, metric: str) -> dict[str, Any]:
    """One task's items, values, clusters and weights, the last None unless each value has one."""
    nothing = np.array([], dtype=object)
    empty = (nothing, np.array([], dtype=float), nothing, nothing)
    items, values, clusters, requests = frame.get(f"{task}{SEPARATOR}{metric}", empty)
    weights = None
    if metric in WEIGHTS:
        _, found, _, _ = frame.get(f"{task}{SEPARATOR}{WEIGHTS[metric]}", empty)
        weights = found if len(found) == len(values) else None
    return {"items": items, "values": values, "clusters": clusters, "requests": requests, "weights": weights}


def _values_of_texts(frame: dict[str, Any]) -> dict[str, Any]:
    """The held-out rows by number and digest of the target text, with their bits per byte."""
    found = _values(frame, HELDOUT_LOSS, BITS_PER_BYTE)
    names = [f"{row}{SEPARATOR}{text}" for row, text in zip(found["items"], found["requests"])]
    # Rows with equal replies answer different prompts.
    nothing = np.full(len(names), None)
    return found | {"items": np.array(names, dtype=object), "clusters": nothing, "requests": nothing}


def rows_in(table: ItemTable) -> int:
    """The number of held-out rows in the table of `LOSS_BY_BYTE`."""
    return len({item.partition(SEPARATOR)[0] for item in table.items})


def _table(task: str, *, group: str, metric: str, higher: bool | None, parts: dict[str, dict[str, Any]]) -> ItemTable:
    """Align the subjects' items into one table; a metric of unknown direction is better when higher."""
    items = _all_items([part["items"] for part in parts.values()])
    place = {item: number for number, item in enumerate(items)}
    values, weights = {}, {}
    clusters, requests = np.full(len(items), None, dtype=object), np.full(len(items), None, dtype=object)
    for subject, part in parts.items():
        at = np.array([place[item] for item in part["items"]], dtype=int)
        values[subject] = _placed(part["values"], at, len(items))
        if part["weights"] is not None:
            weights[subject] = _placed(part["weights"], at, len(items))
        clusters[at], requests[at] = part["clusters"], part["requests"]
    pool = np.concatenate(list(values.values()))
    pool = pool[~np.isnan(pool)]
    higher = higher is None or higher
    is_share = bool(higher and len(pool) and pool.min() >= 0 and pool.max() <= 1)
    return ItemTable(
        task=task,
        group=group,
        metric=metric,
        higher_is_better=higher,
        items=items,
        values=values,
        weights=weights if len(weights) == len(values) else None,
        clusters=_cluster_names(items, clusters, _request_names(items, requests)),
        requests=_request_names(items, requests),
        unit="share" if is_share else "plain",
        binary=bool(len(pool)) and bool(np.isin(pool, (0.0, 1.0)).all()),
    )


def _all_items(by_subject: list[np.ndarray]) -> np.ndarray:
    """The first subject's items in its order, then the items that only others have."""
    first = by_subject[0]
    if all(np.array_equal(items, first) for items in by_subject):
        return first
    return np.array(list(dict.fromkeys(np.concatenate(by_subject))), dtype=object)


def _placed(numbers: np.ndarray, at: np.ndarray, count: int) -> np.ndarray:
    placed = np.full(count, np.nan)
    placed[at] = numbers
    return placed


def _request_names(items: np.ndarray, requests: np.ndarray) -> np.ndarray:
    """Every item's request; an item of an old file without one has its own."""
    return np.array([f"item {item}" if request in (None, "") else request for item, request in zip(items, requests)])


def _cluster_names(items: np.ndarray, clusters: np.ndarray, requests: np.ndarray) -> np.ndarray | None:
    """Every item's cluster, or None where each item is its own.

    Items without a passage that they share are together if the model is asked the same.
    """
    names = [request if cluster in (None, "") else cluster for cluster, request in zip(clusters, requests)]
    return np.array(names) if len(set(names)) < len(names) else None
