"""Any JSON or YAML of nested settings and metrics, as one row per run and rows of its log."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from loragrid.external.columns import COSTS, as_number, setting_of
from loragrid.external.directions import known_direction, name_words
from loragrid.external.runs import is_number
from loragrid.external.step_logs import is_step_log
from loragrid.external.tables import NAME_COLUMNS

# Words for parts of a file, which are no part of a score's name.
METRIC_PARTS = {
    *("metrics", "metric", "results", "scores", "eval", "evaluation", "test", "val", "validation", "summary"),
    *("final_metrics", "eval_results", "test_results"),
}
SETTING_PARTS = {
    *("config", "settings", "args", "arguments", "params", "parameters", "hparams", "hyperparameters"),
    *("training_args", "train_config", "peft_config", "lora_config", "optimizer_kwargs"),
}
WRAPPERS = {"run_info", "train_info"}
# Parts that describe a machine, or how text was sampled.
NOT_READ = {"system_info", "package_info", "pytorch_info", "generation_kwargs", "_wandb", "generation_config"}
# Of a score that is a map of its own.
OWN_VALUE, OWN_ERROR = ("value", "mean", "score"), ("stderr", "se", "std_err", "standard_error")
OWN_ITEMS = ("n", "items", "total")
OWN_KEYS = {*OWN_VALUE, *OWN_ERROR, *OWN_ITEMS, "std", "desc", "ci", "low", "high", "higher_is_better"}
DEEPEST = 8
Row = dict[str, Any]


class FlatFile(NamedTuple):
    """A nested file: one `row` with the names of tables, the rows of `steps`, and `other` settings.

    The names of the others are no known setting's; they are numbers.
    """

    row: Row
    steps: list[Any]
    other: Row


def runs_of(content: Any) -> list[Any] | None:
    """The rows of a file that holds several runs, None if it holds one.

    Lists of rows, data frames as pandas writes them, and maps from runs to their scores.
    """
    if isinstance(content, list):
        return content
    names, lines = content.get("columns"), content.get("data")
    if isinstance(names, list) and isinstance(lines, list) and all(isinstance(line, list) for line in lines):
        return [dict(zip(map(str, names), line)) for line in lines]
    for key in ("runs", "data", "results", "rows", "experiments"):
        rows = content.get(key)
        if isinstance(rows, list) and rows and isinstance(rows[0], dict) and not is_step_log(rows):
            return rows
    columns = [value for value in content.values() if isinstance(value, dict)]
    if len(columns) < len(content) or len(columns) < 2:
        return None
    if all(column.keys() == columns[0].keys() and all(key.isdigit() for key in column) for column in columns):
        return [{name: column[key] for name, column in content.items()} for key in columns[0]]
    if content.keys() & (METRIC_PARTS | SETTING_PARTS):
        return None
    if sum(_has_score(column) for column in columns) > 1:
        return [{"name": name} | column for name, column in content.items()]
    return None


def flat_row(content: Mapping[str, Any]) -> FlatFile:
    """A nested map as one row with the names that tables use."""
    flat, named_at = FlatFile({}, [], {}), DEEPEST
    for path, found in _leaves(content, ()):
        value = as_number(found)
        if isinstance(value, list) and is_step_log(value):
            flat.steps.extend(value if not flat.steps else [])
            continue
        name, whole = path[-1], _score_name(path)
        if name in NAME_COLUMNS:
            if path[-2:-1] in (("model",), ("base_model",)):
                flat.row.setdefault("model", value)
            # A name further in is no run's, such as the data's.
            if len(path) > named_at:
                continue
            named_at = len(path)
        setting = setting_of(name, value)
        if (setting is not None and setting[0] != "metric") or name in NAME_COLUMNS:
            # What stands further out describes the run itself.
            flat.row.setdefault(name, _setting_value(value))
        elif set(path[:-1]) & SETTING_PARTS:
            # A weight of a loss in a configuration is no score. Texts are mostly folders, which differ anyway.
            if is_number(value) and not name_words(name) & (COSTS | {"id", "port", "seed"}):
                flat.other.setdefault(name, value)
        elif is_number(value) and (len(path) == 1 or known_direction(whole) is not None or set(path) & METRIC_PARTS):
            flat.row[whole] = value
    return flat


def _leaves(content: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths and values, breadth first in each part, without those that say nothing of the run."""
    if not isinstance(content, Mapping) or len(path) > DEEPEST:
        return
    inner = []
    for key, value in content.items():
        name = str(key).strip().lower()
        if name in NOT_READ:
            continue
        if isinstance(value, Mapping):
            inner.append(((*path, name), value))
        elif value is not None:
            yield (*path, name), value
    for place, value in inner:
        yield from _own_value(value, place) or _leaves(value, place)


def _own_value(content: Mapping[str, Any], path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    """A score or setting that is a map of its own, such as {"value": 0.5, "stderr": 0.02, "n": 100}; else empty."""
    keys = {str(key).lower() for key in content}
    if not keys & set(OWN_VALUE) or not keys <= OWN_KEYS:
        return []
    found = [(path, first)] if (first := _first(content, OWN_VALUE)) is not None else []
    for names, ending in ((OWN_ERROR, "stderr"), (OWN_ITEMS, "n")):
        value = _first(content, names)
        if found and is_number(value):
            found.append(((*path[:-1], f"{path[-1]}_{ending}"), value))
    return found


def _first(content: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((content[name] for name in names if content.get(name) is not None), None)


def _score_name(path: tuple[str, ...]) -> str:
    kept = [part for part in path[:-1] if part not in METRIC_PARTS | SETTING_PARTS | WRAPPERS]
    # The part that names the rows stays: test accuracy is no training accuracy.
    rows = [part for part in path[:-1] if part in ("eval", "test", "val", "validation")]
    return " ".join([*rows, *kept, path[-1]])


def _setting_value(value: Any) -> Any:
    """A list, such as of target modules or data sets, as text."""
    if not isinstance(value, list):
        return value
    parts = [part.get("path", part.get("name", "")) if isinstance(part, Mapping) else part for part in value]
    return ", ".join(str(part) for part in parts if part != "")


def _has_score(row: Mapping[str, Any]) -> bool:
    found = flat_row(row).row
    return any(is_number(value) and known_direction(name) is not None for name, value in found.items())
