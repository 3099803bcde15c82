"""The page's section on the search: trials, winner, and how far the result can be trusted."""

from typing import Any

from loragrid.formatting import duration, number, visible, whole
from loragrid.records.outcomes import Outcome
from loragrid.reporting.comparison_tables import axis_table
from loragrid.reporting.page import Material
from loragrid.reporting.sentences.search import (
    TRIAL_OUTCOMES,
    edge_remarks,
    importance_basis,
    objective_name,
    point_text,
    search_caveats,
    search_outcome,
    search_path_text,
    search_setup,
    setting_value,
)
from loragrid.reporting.sentences.value_findings import axis_finding
from loragrid.setting_texts import axis_name
from loragrid.study.search.search_space import coordinate
from loragrid.study.search.winner import read_search


def search_section(material: Material) -> dict[str, Any] | None:
    """The section as plain values; None if no search with these settings was made."""
    found = read_search(material.study, material.results)
    if found is None:
        return None
    parameters = found["settings"]["parameters"]
    return {
        "setup": search_setup(material.study.base_case.budget, found),
        "outcome": search_outcome(found),
        "caveats": search_caveats(found),
        "winner": _winner(material, found),
        "edges": edge_remarks(found),
        "table": axis_table(material, "search"),
        "parameters": [axis_name(name) for name in parameters],
        "objective": objective_name(found) if found["objective"]["task"] is not None else "",
        "trials": [_trial(row, found) for row in sorted(found["rows"], key=lambda row: _best_first(row, found))],
        "neighbours": _neighbours(found),
        "history": search_path_text(found),
        "importance": importance_basis(found["importance"], found["settings"]["evaluations"]),
        "name": visible(found["search"], 80),
    }


def _winner(material: Material, found: dict[str, Any]) -> str:
    """The winner's settings and its result at the grid's full budget; empty without a winner."""
    if found["best"] is None:
        return ""
    trial = f"Trial {found['best']['slot']}: {point_text(found['best']['point'])}."
    run = found["winner"]["run"]
    if run in {cell.run for cell in material.study.cells}:
        return f"{trial} The grid has the same run, “{material.compared.labels[run]}”."
    for outcome in material.outcomes:
        if outcome.subject == run:
            return f"{trial} {_at_full_budget(material, outcome)}"
    return f"{trial} It was not trained at the full budget. To train it, set tune.enabled to true in the study file."


def _at_full_budget(material: Material, outcome: Outcome) -> str:
    if outcome.status != "scored":
        reason = visible(outcome.reason or "", 200)
        return f"At the grid’s full budget its run is {outcome.status}: {reason}."
    finding = axis_finding(material.compared, "search")
    return (
        "Trained at the grid’s full budget and scored like any run, it is “search winner” in "
        f"every table of this page. {finding}"
    )


def _best_first(row: dict[str, Any], found: dict[str, Any]) -> tuple[Any, ...]:
    """Sorts complete trials by the objective's value, then the others by how far they got."""
    if row["outcome"] == "complete":
        value = -row["value"] if found["objective"]["higher_is_better"] else row["value"]
        return False, 0, value, row["slot"]
    loss = float("inf") if row["loss"] is None else row["loss"]
    return True, -_part(row), loss, row["slot"]


def _part(row: dict[str, Any]) -> int:
    """The last part of the budget after which a trial was measured, counted from 1.

    0 if it never was.
    """
    return row["curve"][-1][0] if row["curve"] else 0


def _trial(row: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    values = []
    for name, space in found["settings"]["parameters"].items():
        value = row["point"].get(name)
        if value is None:
            values.append({"text": "–", "sort": None})
        else:
            values.append({"text": setting_value(name, value), "sort": coordinate(space, value)})
    part = _part(row)
    return {
        "slot": row["slot"],
        "best": bool(found["best"]) and row["slot"] == found["best"]["slot"],
        "values": values,
        "outcome": TRIAL_OUTCOMES[row["outcome"]],
        "reason": visible(row["reason"] or "", 200),
        "part": f"{part}/{found['settings']['evaluations']}",
        "loss": number(row["loss"], 4),
        "value": number(row["value"], 4),
        "sort": {
            "part": part,
            "value": row["value"],
            "loss": row["loss"],
            "tokens": row["tokens"],
            "seconds": row["seconds"],
        },
        "tokens": whole(row["tokens"]),
        "seconds": duration(row["seconds"]),
        "drawn": "model" if row["modelled"] else "random",
        "attempts": row["attempts"],
    }


def _neighbours(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials nearest to the winner, with both losses at the last measurement that both have."""
    rows = found["best"]["neighbours"] if found["best"] else []
    evaluations = found["settings"]["evaluations"]
    return [
        {
            "slot": row["slot"],
            "setting": point_text(row["point"]),
            "distance": f"{row['distance']:.0%}",
            "outcome": TRIAL_OUTCOMES[row["outcome"]],
            "part": "–" if row["part"] is None else f"{row['part']}/{evaluations}",
            "loss": number(row["loss"], 4),
            "best": number(row["best_loss_there"], 4),
        }
        for row in rows
    ]
