"""The report's answer to "which setting mattered?"."""

import math
from dataclasses import dataclass, field

import pandas as pd

from loragrid.comparing.measures import RETENTION
from loragrid.formatting import detectable, listed, plain_name, plural
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.sentences.findings import Headline, difference, start
from loragrid.reporting.sentences.interactions import axes_together, movements
from loragrid.reporting.sentences.largest_gain import unlearned_texts
from loragrid.reporting.sentences.limits import reason_text
from loragrid.reporting.sentences.verdicts import differing, of_adapters, of_settings, proved, task_name
from loragrid.setting_texts import axis_name, axis_value
from loragrid.statistics.paired_statistics import DIFFER
from loragrid.study.cell_pairs import UNTRAINED
from loragrid.study.grid import ARMS, NAMED, TIED

# Findings on other measures, values of an axis, and pairs of adapters that the first answers name; the tables have all.
MOST_ELSEWHERE, MOST_VALUES, MOST_APART = 2, 3, 3


def what_mattered(compared: ComparedStudy) -> Headline:
    """Which axes have a value with a proved effect on the main target, and which have none."""
    question = "Which setting mattered?"
    rows, unlearned = target_rows(compared)
    if compared.axes.empty and compared.of_runs["run"].nunique() == 1:
        text = "The study has one setting. To compare others, list their values under grid.axes in the study file."
        return Headline(question, "plain", "One setting only", text)
    if rows.empty or (rows["verdict"] == "").all():
        reasons = [f"{_not_compared(rows, axis)}." for axis in dict.fromkeys(rows.get("axis", ()))]
        text = " ".join(["No setting could be compared with the base case yet.", *reasons, *unlearned])
        return Headline(question, "unsure", "Can’t tell", text)
    found = sort_axes(rows, compared)
    parts = movements(compared) + _effects(found, compared)
    parts += _of_one_seed(found, compared) + [f"{reason}." for reason in found.not_compared] + unlearned
    if found.moved:
        return Headline(question, "good", start(listed(found.moved)), " ".join(parts))
    if together := axes_together(compared):
        return Headline(question, "good", f"{start(listed(together))}, together", " ".join(parts))
    return Headline(question, "unsure", "Can’t tell", " ".join(parts))


def target_rows(compared: ComparedStudy) -> tuple[pd.DataFrame, list[str]]:
    """The comparisons of axes on the main target that say something of a setting, and sentences on models without."""
    rows = compared.axes[compared.axes["task"] == compared.target]
    # Training against no training is the first question, and no setting.
    rows = rows[~((rows.get("axis") == "method") & (rows.get("value") == UNTRAINED))]
    return _without_unlearned(rows, compared)


def _without_unlearned(rows: pd.DataFrame, compared: ComparedStudy) -> tuple[pd.DataFrame, list[str]]:
    """The rows without those of models that learned nothing, which only compare bases, and sentences on these."""
    if rows.empty:
        return rows, []
    texts = unlearned_texts(compared)
    is_unlearned = (rows["axis"] == "model") & rows["value"].isin(list(texts))
    return rows[~is_unlearned], [texts[model] for model in rows.loc[is_unlearned, "value"]]


@dataclass(frozen=True)
class AxesFound:
    """The axes by what their tests on the main target show, each as words for the answer.

    `moved` and `steps`: names and proved differences; `still`: axes without a proved effect, and
    `detectable` what their tests could find; `elsewhere`: what those do on other measures; `one_seed`:
    axes of which only adapters were compared, and `apart` the adapters that differ; `not_compared`:
    axes without a test, with the reason.
    """

    moved: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    still: list[str] = field(default_factory=list)
    detectable: list[float] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    one_seed: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)


def sort_axes(rows: pd.DataFrame, compared: ComparedStudy) -> AxesFound:
    """The axes by what their tests on the main target show."""
    found = AxesFound()
    for axis, of_axis in rows.groupby("axis", sort=False):
        judged = of_axis[of_axis["verdict"] != ""]
        settings, adapters = of_settings(judged), of_adapters(judged)
        apart = [_step(row, axis, compared) for _, row in differing(adapters).iterrows()]
        found.apart.extend(apart)
        if len(proved(settings)):
            found.moved.append(axis_name(axis))
            found.steps.append(_steps(proved(settings), axis, compared))
        elif len(settings):
            # The largest of the values' detectable differences: any effect beyond it would have
            # shown on each value.
            found.still.append(axis_name(axis))
            found.detectable.append(settings["detectable"].max(skipna=False))
            for value, verdict, default, tasks in proved_elsewhere(compared, axis, brief=True):
                found.elsewhere.append(f"{_named(axis, value)} is {verdict} than {default} on {tasks}")
        elif len(adapters):
            found.one_seed.append(axis_name(axis))
        else:
            found.not_compared.append(_not_compared(rows, axis))
    return found


def _steps(rows: pd.DataFrame, axis: str, compared: ComparedStudy) -> str:
    """The axis's proved values, in its order."""
    texts = [_step(row, axis, compared) for _, row in rows.head(MOST_VALUES).iterrows()]
    more = len(rows) - len(texts)
    return listed(texts) + (f" (and {plural(more, 'other value')})" if more > 0 else "")


def _effects(found: AxesFound, compared: ComparedStudy) -> list[str]:
    """Sentences on the main target, then on other measures."""
    name = plain_name(compared.target)
    parts = [f"{start(step)}." for step in found.steps]
    if found.steps:
        parts[0] = f"On {name}: {found.steps[0]}."
    if found.still:
        averaged = " on average over the other settings" if axes_together(compared) else ""
        parts.append(f"{start(listed(found.still))}: no effect proved{averaged}; {missed_text(found, compared.unit)}.")
    if found.elsewhere:
        parts.append(f"On other measures: {_first(found.elsewhere, MOST_ELSEWHERE)}.")
    return parts


def _of_one_seed(found: AxesFound, compared: ComparedStudy) -> list[str]:
    """Sentences on axes whose values were trained under one seed: what these adapters show."""
    parts = []
    if found.one_seed and not compared.judges_settings:
        parts.append("No setting can be judged from one seed.")
    elif found.one_seed:
        parts.append(f"{start(listed(found.one_seed))}: one seed in an arm, so nothing is said of the setting.")
    if found.apart:
        lower = "" if compared.higher_is_better else " (lower is better)"
        seen = _first(found.apart, MOST_APART)
        parts.append(f"Adapters that differ on {plain_name(compared.target)}{lower}: {seen}.")
    elif found.one_seed:
        parts.append(f"No two of these adapters are shown to differ on {plain_name(compared.target)}.")
    return parts


def _first(texts: list[str], most: int) -> str:
    more = f"; {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


def missed_text(found: AxesFound, unit: str, *, effect: str = "an effect") -> str:
    """The size below which the tests of these axes would usually miss an effect; axes where they miss any."""
    sizes = dict(zip(found.still, found.detectable, strict=True))
    blind = [axis for axis, size in sizes.items() if math.isnan(size)]
    if len(blind) == len(sizes):
        return "these items and seeds cannot prove any effect"
    largest = max(size for size in sizes.values() if not math.isnan(size))
    text = f"{effect} below about {detectable(largest, unit)} would usually be missed"
    if blind:
        text += f", and any effect of {listed(blind)}"
    return text


def proved_elsewhere(compared: ComparedStudy, axis: str, *, brief: bool = False) -> list[tuple[str, str, str, str]]:
    """An axis's proved effects on other measures, pooled retention first.

    Each is (value, verdict, base case's value, measures). `brief`: exploratory ones are counted where
    pooled retention is among them.
    """
    rows = compared.axes
    rows = proved(rows[(rows["axis"] == axis) & (rows["task"] != compared.target)])
    rows = rows.sort_values("family", key=lambda family: family != RETENTION, kind="stable")
    found = []
    for (value, verdict, default), group in rows.groupby(["value", "verdict", "base_case_value"], sort=False):
        found.append((axis_value(axis, value), verdict, axis_value(axis, default), _measures(group, brief)))
    return found


def _measures(rows: pd.DataFrame, brief: bool) -> str:
    """The rows' measures, single tasks marked as exploratory."""
    pooled = [task_name(task) for task in rows.loc[rows["family"] == RETENTION, "task"]]
    single = [task_name(task) for task in rows.loc[rows["family"] != RETENTION, "task"]]
    if pooled and brief:
        return f"{pooled[0]} (exploratory: {plural(len(single), 'more measure')})" if single else pooled[0]
    marked = [f"{listed(single)} (exploratory)"] if single else []
    return ", and ".join(pooled + marked)


def _not_compared(rows: pd.DataFrame, axis: str) -> str:
    return f"{start(axis_name(axis))} was not compared: {reason_text(rows[rows['axis'] == axis].iloc[0])}"


def _step(row: pd.Series, axis: str, compared: ComparedStudy) -> str:
    amount = difference(row, compared.unit).lstrip("+−")
    direction = "higher" if row["difference"] > 0 else "lower"
    judged = "" if compared.higher_is_better or row["verdict"] == DIFFER else f" ({row['verdict']})"
    value, default = (axis_value(axis, row[key]) for key in ("value", "base_case_value"))
    if axis in ARMS:
        default = "the base case"
    return f"{_named(axis, value)} scored {amount} {direction}{judged} than {default}"


def _named(axis: str, value: str) -> str:
    """A value with its axis; an arm of several settings is named by itself."""
    return value if axis in (TIED, NAMED) else f"{axis_name(axis)} {value}"
