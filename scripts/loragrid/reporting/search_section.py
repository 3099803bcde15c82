"""The report's section on the search: what was tried, what came of it, and how little that may mean."""

from typing import Any

from loragrid.formatting import duration, listed, number, plural, setting, visible, whole
from loragrid.records.outcomes import Outcome
from loragrid.reporting.comparison_tables import axis_rows
from loragrid.reporting.figures import search_charts
from loragrid.reporting.figures.search_charts import TrialLine
from loragrid.reporting.figures.study_figures import Pictures
from loragrid.reporting.figures.svg import drawing
from loragrid.reporting.findings import axis_finding
from loragrid.reporting.page import Material
from loragrid.study.search_space import coordinate
from loragrid.study.winner import read_search

NAMES = {
    "learning_rate": "learning rate",
    "warmup_steps": "warm-up steps",
    "weight_decay": "weight decay",
    "batch": "batch",
    "accumulation": "accumulation",
    "rank": "rank",
    "alpha_per_rank": "alpha per rank",
}
OUTCOMES = {
    "complete": "complete",
    "pruned": "pruned",
    "diverged": "diverged",
    "out_of_memory": "out of memory",
    "failed": "failed",
    "open": "not finished",
}
EDGE = 0.05  # a winner so near the end of a range, as a share of it, says that the range may be too narrow


def tune_section(material: Material) -> dict[str, Any] | None:
    """The section as plain values; None where no search of these settings was made."""
    found = read_search(material.study, material.results)
    if found is None:
        return None
    return {
        "asked": _asked(material, found),
        "told": _told(found),
        "honest": _honest(found),
        "winner": _winner(material, found),
        "edges": _edges(found),
        "rows": axis_rows(material, "search"),
        "parameters": [_name(name) for name in found["settings"]["parameters"]],
        "trials": [_trial(row, found) for row in _by_loss(found["rows"])],
        "neighbours": _neighbours(found),
        "importance": _importance(found["importance"], found["settings"]["evaluations"]),
        "name": visible(found["search"], 80),
    }


def draw_tune(material: Material, pictures: Pictures) -> None:
    """History, learning curves, parallel coordinates and importance, as far as there is something to show."""
    found = read_search(material.study, material.results)
    lines = _lines(found) if found else []
    if not lines:
        return
    space = found["settings"]["parameters"]
    with drawing():
        pictures.add("tune_history", search_charts.history(lines), "Held-out loss at the end of each trial, in order")
        pictures.add("tune_curves", search_charts.curves(lines), "Held-out loss of each trial against tokens")
        marks = [
            (_name(name).replace("accumulation", "accum."), _marks(name, values)) for name, values in space.items()
        ]
        pictures.add(
            "tune_parallel", search_charts.parallel(lines, marks), "The settings of each trial, a line per trial"
        )
        shares = found["importance"]["shares"]
        if shares:
            bars = [(_name(name), share) for name, share in shares.items()]
            pictures.add(
                "tune_importance", search_charts.importance(bars), "How much each setting explains of the loss"
            )


def _lines(found: dict[str, Any]) -> list[TrialLine]:
    best = found["best"]["slot"] if found["best"] else None
    space = found["settings"]["parameters"]
    return [
        TrialLine(
            number=row["slot"],
            tokens=[point[2] for point in row["curve"]],
            losses=[point[3] for point in row["curve"]],
            places=[coordinate(values, row["point"][name]) for name, values in space.items()],
            complete=row["outcome"] == "complete",
            best=row["slot"] == best,
        )
        for row in found["rows"]
        if row["curve"]
    ]


def _marks(name: str, values: dict[str, Any]) -> list[tuple[float, str]]:
    """What is written along a parameter's axis: its choices, or the ends of its range."""
    shown = sorted(values["choices"]) if "choices" in values else [values["low"], values["high"]]
    return [(coordinate(values, value), _value(value)) for value in shown]


def _name(parameter: str) -> str:
    return NAMES[parameter]


def _value(value: float) -> str:
    return str(value) if isinstance(value, int) else "0" if value == 0 else setting(value)


def _setting(point: dict[str, Any]) -> str:
    return ", ".join(f"{_name(key)} {_value(value)}" for key, value in point.items())


def _asked(material: Material, found: dict[str, Any]) -> str:
    """What a trial is, and what trials are compared at."""
    settings = found["settings"]
    unit, amount = next(iter(settings["budget"].items()))
    names = listed([_name(name) for name in settings["parameters"]])
    full = material.study.training.budget
    equal = (
        "Trials are compared at equal tokens."
        if unit == "tokens"
        else f"Trials have equal {unit}, not equal tokens: one with a larger batch has seen more text."
    )
    rows = settings["heldout_rows"]
    return (
        f"{plural(settings['trials'], 'trial')} over {names}. Each trains for {whole(amount)} {unit} (a run of the grid: "
        f"{whole(full.amount)} {full.unit}) on the data and code of the grid, and is measured on "
        f"{'all held-out rows' if rows is None else plural(rows, 'held-out row')} at "
        f"{plural(settings['evaluations'], 'equal part')} of the way. {equal}"
    )


def _told(found: dict[str, Any]) -> str:
    """How the trials ended and what pruning saved."""
    ended = [f"{count} {OUTCOMES[name]}" for name, count in found["outcomes"].items()]
    saved = ""
    if found["settings"]["pruner"] is not None and found["steps_saved"] is not None:
        saved = (
            f" Pruning left out {found['steps_saved']:.0%} of the updates that the same trials would have made "
            f"({whole(found['steps'])} of {whole(found['steps_in_full'])} were made)."
        )
    return f"{listed(ended).capitalize()}, in {duration(found['trial_seconds'])} of training.{saved}"


def _honest(found: dict[str, Any]) -> list[str]:
    """How much the search itself had to do with its result."""
    trials, modelled = len(found["rows"]), found["modelled"]
    random = f"The sampler had a model of the space for {modelled} of {plural(trials, 'trial')}; the others were drawn at random."
    if modelled < trials / 2:
        random += " Read this as a random search."
    best = found["best"]
    if best is None:
        return [random, "No trial was completed, so there is no winner."]
    complete = plural(found["outcomes"]["complete"], "complete trial")
    place = "the best" if best["place_at_first"] == 1 else f"number {best['place_at_first']}"
    early = _beside_median(found["median_first_loss"], best["first_loss"])
    median = found["median_complete_loss"]
    late = f"{_beside_median(median, best['loss'])} of {complete}" if median is not None else f"the best of {complete}"
    return [
        random,
        f"At the first measurement, which {plural(best['measured'], 'trial')} reached, the later winner was {place} of them, "
        f"{early}. At the end it stood at {number(best['loss'], 4)}, {late}.",
        "Short trials favour high learning rates, since those fall fastest at first; and the winner was picked by its loss on "
        "held-out rows, so that very loss flatters it a little. What counts is its run at the full budget.",
    ]


def _beside_median(median: float, loss: float) -> str:
    return f"{number(abs(median - loss), 2)} {'under' if loss <= median else 'over'} the median"


def _winner(material: Material, found: dict[str, Any]) -> str:
    """The winner's settings, and what became of it at the grid's full budget."""
    if found["best"] is None:
        return ""
    what = f"Trial {found['best']['slot']}: {_setting(found['best']['point'])}."
    run = found["winner"]["run"]
    if run in {cell.run for cell in material.study.cells}:
        return f"{what} That is a run of the grid, “{material.compared.labels[run]}”."
    outcome = next((o for o in material.outcomes if o.subject == run), None)
    if outcome is None:
        return f"{what} It was not trained at the full budget: set tune.enabled to true in the study file for that."
    verdict = f" {axis_finding(material.compared, 'search')}" if outcome.status == "scored" else ""
    return f"{what} {_at_full_budget(outcome)}{verdict}"


def _at_full_budget(outcome: Outcome) -> str:
    if outcome.status == "scored":
        return "Trained at the grid’s full budget and scored like any run, it is “search winner” in every table of this page."
    return f"At the grid’s full budget: {outcome.status}, {visible(outcome.reason or '', 200)}."


def _edges(found: dict[str, Any]) -> list[str]:
    """Parameters whose best value lies at the end of their range."""
    if found["best"] is None:
        return []
    lines = []
    for name, values in found["settings"]["parameters"].items():
        place = coordinate(values, found["best"]["point"][name])
        if "choices" not in values and values["low"] < values["high"] and not EDGE <= place <= 1 - EDGE:
            end = "low" if place < 0.5 else "high"
            lines.append(f"The best {_name(name)} lies at the {end} end of its range: a better one may lie beyond.")
    return lines


def _by_loss(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Complete trials by their loss, then the others by how far they came."""
    return sorted(
        rows,
        key=lambda row: (
            row["outcome"] != "complete",
            0 if row["outcome"] == "complete" else -(row["curve"][-1][0] if row["curve"] else 0),
            float("inf") if row["loss"] is None else row["loss"],
            row["slot"],
        ),
    )


def _trial(row: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    space = found["settings"]["parameters"]
    part = row["curve"][-1][0] if row["curve"] else 0
    return {
        "slot": row["slot"],
        "best": bool(found["best"]) and row["slot"] == found["best"]["slot"],
        "values": [
            {"text": _value(row["point"][name]), "sort": row["point"][name]}
            if name in row["point"]
            else {"text": "–", "sort": None}
            for name in space
        ],
        "outcome": OUTCOMES[row["outcome"]],
        "reason": visible(row["reason"] or "", 200),
        "part": f"{part}/{found['settings']['evaluations']}",
        "loss": number(row["loss"], 4),
        "sort": {"part": part, "loss": row["loss"], "tokens": row["tokens"], "seconds": row["seconds"]},
        "tokens": whole(row["tokens"]),
        "seconds": duration(row["seconds"]),
        "drawn": "model" if row["modelled"] else "random",
        "attempts": row["attempts"],
    }


def _neighbours(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials nearest to the winner, and how much worse they were where both were last measured."""
    rows = found["best"]["neighbours"] if found["best"] else []
    return [
        {
            "slot": row["slot"],
            "setting": _setting(row["point"]),
            "distance": f"{row['distance']:.0%}",
            "outcome": OUTCOMES[row["outcome"]],
            "part": "–" if row["part"] is None else f"{row['part']}/{found['settings']['evaluations']}",
            "loss": number(row["loss"], 4),
            "best": number(row["best_loss_there"], 4),
        }
        for row in rows
    ]


def _importance(told: dict[str, Any], evaluations: int) -> str:
    trials = plural(told["trials"], "trial")
    if told["shares"] is None:
        return f"With {trials} to compare, nothing can be said about which setting mattered in the search."
    few = " With so few trials, take it as a hint." if told["trials"] < 30 else ""
    if told["at"] == "end":
        return f"By fANOVA over the {told['trials']} complete trials; pruned ones have no final loss and are left out.{few}"
    return (
        f"By fANOVA over the losses of {trials} at the first of {plural(evaluations, 'measurement')}, since pruning left too few "
        f"final losses: what mattered early on.{few}"
    )
