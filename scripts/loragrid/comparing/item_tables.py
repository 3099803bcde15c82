"""The per-item values of all scored subjects: one table per task, aligned by item."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loragrid.errors import UserError, first_line
from loragrid.records.outcomes import Outcome

# Metric → metric that weighs its items: a mean loss is per token, so a long row counts more than a short one.
WEIGHTS = {"loss": "loss_tokens"}


@dataclass(frozen=True)
class ItemTable:
    """One task's items (n,) with every subject's values.

    `values` maps a subject to (n,) in the order of `items`, NaN where it lacks an item; `weights` likewise, or None.
    `clusters` (n,) names the passage that items share, or is None. `unit` is "share" for scores from 0 to 1, else "plain".
    """

    task: str
    group: str
    metric: str
    higher_is_better: bool
    items: np.ndarray
    values: dict[str, np.ndarray]
    weights: dict[str, np.ndarray] | None
    clusters: np.ndarray | None
    unit: str
    binary: bool


def load_items(results: Path, outcomes: list[Outcome]) -> dict[str, ItemTable]:
    """Task → table of its primary metric, in the study's order, for tasks on which at least one subject was scored.

    Raises `UserError` when an items file cannot be read.
    """
    scored = [outcome for outcome in outcomes if outcome.status == "scored"]
    found: dict[str, dict[str, Any]] = {}
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
    return {task: _table(task, **known) for task, known in found.items()}


def _read_parquet(path: Path) -> dict[str, Any]:
    """An items file as task and metric, joined by a separator → (items, values, clusters); read once per subject."""
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
        wanted = [name for name in ("task", "metric", "item", "value", "cluster") if name in names]
        table = pyarrow.parquet.read_table(path, columns=wanted, use_threads=False)
        # Depending on their version pandas and pyarrow write `string` or `large_string`, which do not join.
        task, metric = (table.column(name).cast(pyarrow.string()) for name in ("task", "metric"))
        code = pyarrow.compute.binary_join_element_wise(task, metric, "\x1f").combine_chunks().dictionary_encode()
    except (OSError, pyarrow.ArrowException, KeyError) as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}). Fix: delete its folder and score again"
        ) from None
    item, value = table.column("item").to_numpy(zero_copy_only=False), table.column("value").to_numpy()
    cluster = table.column("cluster").to_numpy(zero_copy_only=False) if "cluster" in wanted else None
    indices, keys = code.indices.to_numpy(), code.dictionary.to_pylist()
    # One sort instead of a filter per task and metric: a subject has hundreds of them in a large suite.
    order = np.argsort(indices, kind="stable")
    bounds = np.searchsorted(indices[order], np.arange(len(keys) + 1))
    parts = {}
    for number, key in enumerate(keys):
        rows = order[bounds[number] : bounds[number + 1]]
        parts[key] = (item[rows], value[rows], None if cluster is None else cluster[rows])
    return parts


def _values(frame: dict[str, Any], task: str, metric: str) -> dict[str, Any]:
    """One task's items, values, clusters and weights; weights are None unless there is one per value."""
    empty = (np.array([], dtype=object), np.array([], dtype=float), None)
    items, values, clusters = frame.get(f"{task}\x1f{metric}", empty)
    weights = frame.get(f"{task}\x1f{WEIGHTS[metric]}", empty)[1] if metric in WEIGHTS else None
    if weights is not None and len(weights) != len(values):
        weights = None
    return {"items": items, "values": values, "clusters": clusters, "weights": weights}


def _table(task: str, *, group: str, metric: str, higher: bool | None, parts: dict[str, dict[str, Any]]) -> ItemTable:
    """Align the subjects' items: the first subject's order, then the items that only others have."""
    first = next(iter(parts.values()))["items"]
    items = first
    if not all(np.array_equal(part["items"], first) for part in parts.values()):
        items = np.array(list(dict.fromkeys(item for part in parts.values() for item in part["items"])), dtype=object)
    values, weights, clusters = {}, {}, np.full(len(items), None, dtype=object)
    place = {item: number for number, item in enumerate(items)}
    for subject, part in parts.items():
        at = np.arange(len(items)) if part["items"] is items else np.array([place[i] for i in part["items"]], dtype=int)
        values[subject] = np.full(len(items), np.nan)
        values[subject][at] = part["values"]
        if part["weights"] is not None:
            weights[subject] = np.full(len(items), np.nan)
            weights[subject][at] = part["weights"]
        if part["clusters"] is not None:
            clusters[at] = part["clusters"]
    pool = np.concatenate(list(values.values()))
    pool = pool[~np.isnan(pool)]
    higher = True if higher is None else higher
    # An item without a cluster is its own unit (older files have no clusters); if all items are, there are no clusters.
    names = np.array([f"item {item}" if cluster in (None, "") else cluster for item, cluster in zip(items, clusters)])
    shared = len(set(names)) < len(names)
    return ItemTable(
        task=task,
        group=group,
        metric=metric,
        higher_is_better=higher,
        items=items,
        values=values,
        weights=weights if len(weights) == len(values) else None,
        clusters=names if shared else None,
        unit="share" if higher and len(pool) and pool.min() >= 0 and pool.max() <= 1 else "plain",
        binary=bool(len(pool)) and bool(np.isin(pool, (0.0, 1.0)).all()),
    )
