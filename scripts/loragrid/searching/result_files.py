"""The files of a search's result: tune.json, the tables of its trials, and the winner's study file."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.runtime.atomic_files import write_csv, write_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.provenance import device_info, git_state, versions
from loragrid.searching.search import Search
from loragrid.searching.search_result import importance, summarise_trials, trial_rows
from loragrid.study.search.search_point import settings_sha256
from loragrid.study.search.search_space import Space, encoded
from loragrid.study.search.winner import SCHEMA, write_winner
from loragrid.study.study_file import Study

# Keys of the section `tune` that the result does not repeat.
NOT_SHOWN = ("enabled", "workers", "spaces")


def write_result(study: Study, search: Search, out: Path) -> dict[str, Any]:
    """Write the tables, the winner's study file and, last, tune.json, whose content is returned."""
    # tune.json comes last: Snakemake takes it as the sign that all other files are there.
    rows = trial_rows(search)
    found = summarise_trials(rows, search.space, higher_is_better=search.higher_is_better)
    winner = None
    if found["best"]:
        path, run = write_winner(study, found["best"]["point"], out)
        winner = {"run": run, "study_file": str(path.relative_to(out))}
    write_csv(out / "trials.csv", [_flat(row, search.space) for row in rows])
    write_csv(out / "curves.csv", _curve_rows(rows))
    tune = study.tune
    shown = {key: value for key, value in study.yaml["tune"].items() if key not in NOT_SHOWN}
    result = {
        "schema": SCHEMA,
        "study": study.name,
        "search": search.name,
        "settings_sha256": settings_sha256(study),
        "settings": shown | {"parameters": search.space},
        "objective": {"task": tune.task, "metric": tune.metric, "higher_is_better": search.higher_is_better},
        "chosen_on": search.rows(),
        **found,
        "importance": importance(search),
        "winner": winner,
        "rows": rows,
        "versions": versions(),
        "git": git_state(),
        "device": device_info(),
        "code": code_digest("tune"),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(out / "tune.json", result)
    return result


def _flat(row: dict[str, Any], space: Space) -> dict[str, Any]:
    """A trial's row of the table; settings that it lacks are empty, lists and maps are JSON."""
    facts = {key: value for key, value in row.items() if key not in ("point", "curve")}
    return facts | {name: encoded(row["point"].get(name)) for name in space}


def _curve_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    columns = ("slot", "part", "step", "tokens", "loss")
    return [dict(zip(columns, (row["slot"], *point))) for row in rows for point in row["curve"]]
