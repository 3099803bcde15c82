"""What scoring one task leaves behind, and how a finished task survives a kill."""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.runtime.atomic_files import read_json, sha256_file, write_bytes, write_json

if TYPE_CHECKING:
    import pandas

COLUMNS = ("task", "group", "item", "cluster", "metric", "value", "prompt_sha256", "output")


@dataclass(frozen=True)
class TaskResult:
    """One scored task. `items`: one dict per item and metric (item, metric, value, prompt_sha256, output, and `cluster` where
    items share something: a name that those of one passage have in common).
    `metrics`: name → {"value", "stderr", "higher_is_better"}; higher_is_better is None for evidence, which is no score.
    `lm_eval`: lm-eval's own results without what changes from run to run; None for a task that is not lm-eval's."""

    items: list[dict[str, Any]]
    primary_metric: str
    metrics: dict[str, dict[str, Any]]
    notes: tuple[str, ...]
    lm_eval: dict[str, Any] | None


def file_name(task: str) -> str:
    """A task's name as a file name."""
    return re.sub(r"[^\w.-]", "_", task)


def items_table(task: str, group: str, items: list[dict[str, Any]]) -> "pandas.DataFrame":
    """The per-item table of one task, columns `COLUMNS`, sorted by item (numbers as numbers) and metric as they came."""
    import pandas

    table = pandas.DataFrame([{"cluster": ""} | item for item in items], columns=COLUMNS[2:])
    texts = dict.fromkeys(("item", "cluster", "metric", "prompt_sha256", "output"), str)
    table = table.astype(texts | {"value": float})
    table.insert(0, "task", task)
    table.insert(1, "group", group)
    return table


def write_table(path: Path, table: "pandas.DataFrame") -> None:
    """A table as Parquet, whole or not at all."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())


def write_tables(out: Path, tables: list[Any], lm_eval_results: dict[str, Any]) -> None:
    """items.parquet of all tasks and lm-eval's own results; those of tasks that the study no longer names are removed."""
    import pandas

    write_table(out / "items.parquet", pandas.concat(tables) if tables else items_table("", "", []))
    named = {f"{file_name(task)}.json": results for task, results in lm_eval_results.items() if results is not None}
    for stale in (out / "lm_eval").glob("*.json"):
        if stale.name not in named:
            stale.unlink()
    for name, results in named.items():
        write_json(out / "lm_eval" / name, results)


def save_task(folder: Path, name: str, *, key: str, content: dict[str, Any], items: "pandas.DataFrame | None") -> None:
    """Keep a finished task under `folder`: its items first, then the JSON file that makes it count."""
    path = folder / f"{file_name(name)}.json"
    digest = None
    if items is not None:
        write_table(path.with_suffix(".parquet"), items)
        digest = sha256_file(path.with_suffix(".parquet"))
    write_json(path, {"key": key, "items_sha256": digest, **content})


def load_task(folder: Path, name: str, *, key: str) -> dict[str, Any] | None:
    """What `save_task` kept for exactly this `key`, with its table under "items"; None when there is none.

    A task kept under another key (changed data, code, versions, adapter …) or whose files do not belong together
    is scored again: that costs time and can not give a wrong result.
    """
    path = folder / f"{file_name(name)}.json"
    if not path.is_file():
        return None
    kept = read_json(path)
    if not isinstance(kept, dict) or kept.get("key") != key:
        return None
    if kept["items_sha256"] is None:
        return kept | {"items": None}
    table = path.with_suffix(".parquet")
    if not table.is_file() or sha256_file(table) != kept["items_sha256"]:
        return None
    import pandas

    return kept | {"items": pandas.read_parquet(table)}
