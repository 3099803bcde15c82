"""Keys of a valid study file that rarely mean what their author wanted, as warnings: an axis with a single value, the
size of other data, tasks of the demo with other data.

They refuse and change nothing, so `loragrid.runtime.code_digest` leaves them out of the code of the stages.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loragrid.paths import ROOT
from loragrid.study.run_names import value_text

DEMO_TASKS = ROOT / "config" / "tasks" / "demo"
DEMO_PROMPTS = ROOT / "config" / "prompts" / "demo.jsonl"
# A larger file is not read each time that a study is opened.
LARGEST_COUNTED = 32 * 2**20
# ASSUME: `plan.rows` was written for other data if it differs from the number of lines by a factor of more than 1.5.
OTHER_DATA = 1.5


def likely_slips(written: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> list[str]:
    """A line for each likely slip of a study file: as it is written, and complete with absolute paths."""
    found = [*_single_values(written, settings), *_planned_rows(written, settings), *_demo_tasks(settings)]
    found += _equal_models(settings)
    return [f"{path.name}: {line}" for line in found]


def _single_values(written: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    base = settings["base_case"]
    for name, values in settings["grid"]["axes"].items():
        # A single seed is a choice; the plan says what follows from it.
        if len(values) > 1 or name == "seed" or name not in base:
            continue
        shown = value_text(values[0])
        if values[0] == base[name]:
            yield (
                f"grid.axes.{name}: its only value is that of the base case ({shown}), so the axis adds no run. "
                "Fix: add values to compare, or remove the axis."
            )
        elif name not in written.get("base_case", {}):
            yield (
                f"grid.axes.{name}: a single value ({shown}), which is trained beside the base case's "
                f"{value_text(base[name])}. Fix: to train {shown} alone, write it in base_case.{name} and remove the "
                f"axis; to compare the two, write base_case.{name} too."
            )


def _equal_models(settings: Mapping[str, Any]) -> Iterator[str]:
    """Only models that the study trains: an axis of models that are one compares each with itself."""
    used = {settings["base_case"]["model"], *settings["grid"]["axes"].get("model", [])}
    first: dict[tuple, str] = {}
    for name in sorted(used & settings["models"].keys()):
        entry = settings["models"][name]
        place = entry.get("path") or entry.get("hub"), entry.get("revision"), entry.get("chat_template")
        other = first.setdefault(place, name)
        if other != name:
            yield (
                f"models.{name}: the same model as {other} ({place[0]}), so the two are compared with themselves. "
                f"Fix: give {name} its own path, or remove it from grid.axes.model."
            )


def _planned_rows(written: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    planned = (written.get("plan") or {}).get("rows")
    source = settings["data"][settings["base_case"]["data"]].get("source", {})
    name, lines = _counted_lines(source)
    if planned is not None and lines is not None and not lines / OTHER_DATA <= planned <= lines * OTHER_DATA:
        yield (
            f"plan.rows: {planned:,}, but {name} has about {lines:,} rows, so the plan's hours are those of other "
            f"data. Fix: write {lines}, or remove plan.rows."
        )


def _counted_lines(source: Mapping[str, Any]) -> tuple[str, int | None]:
    """Name and number of rows of a generator, or of a file with a row in each line; None if that takes more work."""
    if "generator" in source:
        return "its generator", source["rows"]
    path = Path(source.get("path", ""))
    if path.suffix.lower() not in (".jsonl", ".ndjson") or not path.is_file():
        return "", None
    if path.stat().st_size > LARGEST_COUNTED:
        return path.name, None
    with open(path, "rb") as file:
        return path.name, sum(1 for line in file if line.strip())


def _demo_tasks(settings: Mapping[str, Any]) -> Iterator[str]:
    if any("generator" in entry.get("source", {}) for entry in settings["data"].values()):
        return
    scoring = settings["scoring"]
    for group in ("target", "retention"):
        names = [name for name in scoring[group] if (DEMO_TASKS / f"{Path(name).stem}.yaml").is_file()]
        if names:
            instead = {"target": "[heldout_loss]", "retention": "[]"}[group]
            yield (
                f"scoring.{group}: {', '.join(names)}: of the demo's invented world, so with other data the scores "
                f"mean nothing. Fix: write {group}: {instead}, or tasks of your own."
            )
    if scoring["qualitative"] == str(DEMO_PROMPTS):
        yield (
            "scoring.qualitative: the demo's prompts, which ask for running plans (config/prompts/demo.jsonl). "
            "Fix: give prompts of your own, or write null."
        )
