"""Questions about values that were not trained yet: beyond the edge of an axis, and a longer budget.

An axis raises one only if its values are shown to matter and the best of them, as measured, is its
smallest or largest: otherwise the best of three equal values is at an edge two times out of three.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from loragrid.comparing.contrasts import SETTING
from loragrid.comparing.designs.axis_pairs import size_of
from loragrid.deciding.beliefs import Measured
from loragrid.deciding.compared_results import BASE_CASE, ArmKey, ComparedResults
from loragrid.deciding.forecast import Forecast
from loragrid.deciding.questions import AXIS, BEYOND, LONGER, Question, Side, Unanswerable, axis_sides, margin_of
from loragrid.deciding.study_changes import Change, changed_file
from loragrid.errors import UserError
from loragrid.statistics.paired_statistics import BETTER, WORSE
from loragrid.study.checks.validation import check_complete, check_written
from loragrid.study.completion import complete
from loragrid.study.file_paths import resolve_paths
from loragrid.study.run_names import value_text

FEWEST_VALUES = 3
# Axes whose values are names, or that need an entry elsewhere in the file.
NOT_EXTENDED = ("seed", "model", "data", "method")
NOT_ALLOWED = "value_not_allowed"  # the reason why a question about a new value has no answer
LONGER_ARM = "twice-the-budget"


def further_questions(forecast: Forecast) -> tuple[list[Question], list[Unanswerable]]:
    """One question per axis whose best value is at its edge, and one for an under-trained base case.

    Those with a value that cannot be trained come apart.
    """
    found = [*_beyond(forecast), *_longer(forecast)]
    refused = [question for question in found if not _can_be_trained(forecast, question)]
    kept = [question for question in found if question not in refused]
    return kept, [Unanswerable(question.kind, question.about, NOT_ALLOWED) for question in refused]


def _beyond(forecast: Forecast) -> Iterable[Question]:
    compared = forecast.compared
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in compared.axes.to_dict("records"):
        if row["task"] == compared.target and row["verdict"]:
            rows.setdefault(row["axis"], []).append(row)
    for axis, tested in rows.items():
        listed = compared.study.grid.axes.get(axis, ())
        matters = any(row["level"] == SETTING and row["verdict"] in (BETTER, WORSE) for row in tested)
        if axis in NOT_EXTENDED or not listed or not matters:
            continue
        raw = {value_text(_plain(value)): _plain(value) for value in listed}
        gains = {row["value"]: row for row in tested if row["value"] in raw}
        beyond = _value_beyond(raw, gains, value_text(compared.study.yaml["base_case"][axis]), compared)
        if beyond is not None:
            yield _question(forecast, axis, *beyond)


def _value_beyond(
    raw: Mapping[str, Any], gains: Mapping[str, Mapping[str, Any]], default: str, compared: ComparedResults
) -> tuple[Any, Mapping[str, Any] | None] | None:
    """The value beyond the edge at which the measured best is, and that best's row; None if the best is inside.

    The row is None if the best is the base case itself.
    """
    measured = [text for text in raw if text in gains or text == default]
    ordered = sorted((text for text in measured if size_of(raw[text])[0] == 0), key=lambda text: size_of(raw[text]))
    if len(ordered) < FEWEST_VALUES or len(ordered) < len(measured):
        return None
    best = max(ordered, key=lambda text: gains[text]["improvement"] if text in gains else 0.0)
    if best not in (ordered[0], ordered[-1]):
        return None
    neighbour = ordered[1] if best == ordered[0] else ordered[-2]
    value = next_value(raw[neighbour], raw[best])
    return None if value is None else (value, gains.get(best))


def next_value(before: Any, edge: Any) -> Any:
    """The value as far beyond the edge as the edge is from its neighbour; None where there is none.

    Positive values by their ratio, as settings are usually spaced; of a batch only its accumulation
    changes.
    """
    if isinstance(edge, Mapping):
        (unit,) = edge
        value = next_value(before[unit], edge[unit]) if set(before) == {unit} else None
        return None if value is None else {unit: value}
    if isinstance(edge, list | tuple):
        one, other = (item[0] * item[1] for item in (before, edge))
        accumulation = round(edge[1] * other / one)
        return [edge[0], accumulation] if accumulation >= 1 and accumulation != edge[1] else None
    if min(before, edge) > 0:
        value = edge * edge / before
    else:
        value = edge + (edge - before)
    if isinstance(edge, int):
        value = round(value)
        return value if value != edge and (value > 0 or edge <= 0) else None
    return float(f"{value:.3g}")


def _question(forecast: Forecast, axis: str, value: Any, edge: Mapping[str, Any] | None) -> Question:
    compared, text = forecast.compared, value_text(value)
    change = Change(values=((axis, value),))
    sides = _sides(forecast.new_arms(change), axis)
    expected = 0.0
    if edge is not None:
        known = axis_sides(compared)[axis, edge["value"]]
        noise = forecast.beliefs.noise(edge, known)
        expected = forecast.beliefs.shrunk(Measured(AXIS, edge["task"], edge["difference"], noise, known))
    return Question(
        f"{BEYOND}:{axis}:{text}",
        BEYOND,
        compared.target,
        sides,
        margin_of(compared, compared.target),
        None,
        {"axis": axis, "value": text, "best": _best(compared, axis, edge)},
        change,
        expected,
    )


def _best(compared: ComparedResults, axis: str, edge: Mapping[str, Any] | None) -> str:
    return value_text(compared.study.yaml["base_case"][axis]) if edge is None else edge["value"]


def _sides(new: Mapping[ArmKey, Any], axis: str) -> tuple[Side, ...]:
    """The new arms and, for each, the arm that differs in the axis alone."""
    sides = []
    for arm in new:
        partner = tuple(part for part in arm if part[0] != axis)
        sides += [Side(arm, 1 / len(new)), Side(partner, 1 / len(new))]
    return tuple(sides)


def _longer(forecast: Forecast) -> Iterable[Question]:
    """Whether twice the budget helps, if most runs of the base case were still improving when they ended."""
    compared = forecast.compared
    study, case = compared.study, compared.arms.get(BASE_CASE)
    budget = study.yaml["base_case"]["budget"]
    longer = {unit: 2 * amount for unit, amount in budget.items()}
    causes = compared.summary["diagnoses"]
    runs = () if case is None else case.runs
    late = [run for run in runs if any(_is_under_trained(cause) for cause in causes.get(run, ()))]
    asked = "budget" in study.grid.axes or LONGER_ARM in study.grid.cells
    if compared.target is None or asked or 2 * len(late) <= len(runs):
        return
    if study.grid.design == "one_factor":
        change = Change(values=(("budget", longer),))
    else:
        # As an axis it would double a factorial grid.
        change = Change(named={LONGER_ARM: {"budget": longer}})
    arm = next(iter(forecast.new_arms(change)))
    sides = (Side(BASE_CASE, 1.0), Side(arm, 1.0))
    about = {"axis": "budget", "value": value_text(longer)}
    name = f"{LONGER}:{value_text(longer)}"
    yield Question(name, LONGER, compared.target, sides, margin_of(compared, compared.target), None, about, change)


def _is_under_trained(cause: Mapping[str, Any]) -> bool:
    # Of a rate that is too high or too low it is a symptom, which more tokens are no cure for.
    return cause["cause"] == "under_trained" and cause.get("symptom_of") is None


def _can_be_trained(forecast: Forecast, question: Question) -> bool:
    """Whether the study file allows the value, and every arm that it is compared with has runs."""
    study = forecast.compared.study
    arms = {side.arm for side in question.sides} - forecast.new_arms(question.needs).keys()
    if not question.sides or not all(forecast.seeds_before(arm) for arm in arms):
        return False
    file = changed_file(study, question.needs, {})
    try:
        check_written(file, study.path)
        settings = complete(file)
        check_complete(settings, study.path)
        resolve_paths(settings, study.path)
    except UserError:
        return False
    return True


def _plain(value: Any) -> Any:
    """A frozen value as the study file writes it."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
