"""Results of one scored task, and their files, from which an interrupted job continues."""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loragrid.records.seal import break_seal, digests_of
from loragrid.runtime.atomic_files import read_json, sha256_file, sha256_json, write_bytes, write_json

if TYPE_CHECKING:
    import pandas

COLUMNS = ("task", "group", "item", "cluster", "metric", "value", "prompt_sha256", "output")


@dataclass(frozen=True)
class TaskResult:
    """Results of one task.

    `items`: one dict per item and metric with the keys item, metric, value, prompt_sha256, output
    and, where items share a passage, cluster (the name those items have in common).
    `metrics`: name → {"value", "stderr", "higher_is_better"}; higher_is_better is None for a
    measure that is not a score.
    `lm_eval`: lm-eval's own results without what changes from run to run; None for the held-out
    loss.
    """

    items: list[dict[str, Any]]
    primary_metric: str
    metrics: dict[str, dict[str, Any]]
    notes: tuple[str, ...]
    lm_eval: dict[str, Any] | None


def file_name(task: str) -> str:
    """A task's name as a file name."""
    return re.sub(r"[^\w.-]", "_", task)


def items_table(task: str, group: str, items: list[dict[str, Any]]) -> "pandas.DataFrame":
    """The per-item table of one task with the columns `COLUMNS`, rows in the order of `items`."""
    import pandas

    table = pandas.DataFrame([{"cluster": ""} | item for item in items], columns=COLUMNS[2:])
    # Explicit types, so that an empty table has the same Parquet schema as a full one.
    texts = dict.fromkeys(("item", "cluster", "metric", "prompt_sha256", "output"), str)
    table = table.astype(texts | {"value": float})
    table.insert(0, "task", task)
    table.insert(1, "group", group)
    return table


def write_table(path: Path, table: "pandas.DataFrame") -> None:
    """Write a table as Parquet, atomically."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())


def write_tables(
    out: Path, tables: "list[pandas.DataFrame]", lm_eval_results: dict[str, dict[str, Any] | None]
) -> None:
    """Write items.parquet and lm_eval/{task}.json; remove results of tasks no longer in the study."""
    import pandas

    break_seal(out)
    table = pandas.concat(tables) if tables else items_table("", "", [])
    write_table(out / "items.parquet", table)
    named = {f"{file_name(task)}.json": results for task, results in lm_eval_results.items() if results is not None}
    for old in (out / "lm_eval").glob("*.json"):
        if old.name not in named:
            old.unlink()
    for name, results in named.items():
        write_json(out / "lm_eval" / name, results)


def result_digests(out: Path) -> dict[str, str]:
    """SHA-256 of the files of a scored subject beside its record, for its seal."""
    files = [out / name for name in ("items.parquet", "answers.jsonl", "answers_summary.json")]
    return digests_of(out, [*filter(Path.is_file, files), *(out / "lm_eval").glob("*.json")])


def save_task(folder: Path, name: str, *, key: str, content: dict[str, Any], items: "pandas.DataFrame | None") -> None:
    """Keep a finished task in `folder` for `load_task`."""
    path = folder / f"{file_name(name)}.json"
    digest = None
    if items is not None:
        write_table(path.with_suffix(".parquet"), items)
        digest = sha256_file(path.with_suffix(".parquet"))
    # The JSON file is written last: without it a killed job's table is ignored.
    kept = {"key": key, "items_sha256": digest, **content}
    write_json(path, kept | {"sha256": sha256_json(kept)})


def load_task(folder: Path, name: str, *, key: str) -> dict[str, Any] | None:
    """What `save_task` kept under this `key`, with the table under "items"; None if not usable.

    A task kept under another key (changed data, code, versions, adapter …), with a damaged table or
    edited, is scored again, which costs time but cannot give a wrong result.
    """
    path = folder / f"{file_name(name)}.json"
    if not path.is_file():
        return None
    kept = read_json(path)
    if not isinstance(kept, dict) or kept.get("key") != key:
        return None
    if kept.pop("sha256", None) != sha256_json(kept):
        return None
    if kept["items_sha256"] is None:
        return kept | {"items": None}
    table = path.with_suffix(".parquet")
    if not table.is_file() or sha256_file(table) != kept["items_sha256"]:
        return None
    import pandas

    return kept | {"items": pandas.read_parquet(table)}
