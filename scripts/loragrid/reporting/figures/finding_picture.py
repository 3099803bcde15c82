"""A published finding and this study's own numbers in one small drawing: a shaded range, and marks on it."""

import math
from collections.abc import Iterator
from html import escape
from itertools import chain
from typing import Any

from markupsafe import Markup

from loragrid.comparing.literature.findings import load_findings
from loragrid.formatting import between, change, setting
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.figures.finding_marks import FindingMarks, Mark, finding_marks
from loragrid.reporting.figures.scales import Scale, limits, ticks
from loragrid.reporting.figures.style import SHAPES
from loragrid.reporting.sentences.scorecard import scorecard_rows

WIDTH, ROW, END, AXIS = 280, 34, 10, 20  # CSS pixels; END: of the drawing's edge; AXIS: height of the numbers below
EDGE = 14  # nearer to an edge than this a number would be cut
MOST_MARKS = 8
LEAST_BAND = 4  # pixels of a range that is a single value
LOGARITHMIC = ("ratio", "rate")


def pictured_findings(compared: ComparedStudy) -> list[dict[str, Any]]:
    """The rows of the scorecard with a `picture` each, None for a finding that this grid could not test."""
    findings, rows = load_findings(), scorecard_rows(compared)
    for row, answer in zip(rows, compared.summary["scorecard"], strict=True):
        marks = finding_marks(answer["why"], findings[answer["finding"]], compared)
        row["picture"] = None if marks is None else finding_picture(marks)
    return rows


def finding_picture(found: FindingMarks) -> Markup:
    """The drawing as an SVG element, whose name tells screen readers all numbers."""
    marks = found.marks[:MOST_MARKS]
    scale = _scale(marks, found.unit)
    height = ROW * len(marks) + AXIS
    label = "; ".join(f"{mark.label}: {_numbers(mark, found.unit)}" for mark in marks)
    parts = chain(
        _axis(scale, found.unit, height - AXIS),
        *(_row(scale, mark, found.unit, ROW * number) for number, mark in enumerate(marks)),
    )
    more = len(found.marks) - len(marks)
    left_out = f"<small>and {more} more</small>" if more else ""
    head = f'<svg class="finding" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{''.join(parts)}</svg>{left_out}")


def _scale(marks: list[Mark], unit: str) -> Scale:
    """Holds all numbers and ranges; an interval that would flatten them leaves the drawing."""
    edges = [edge for mark in marks for edge in (*mark.said, mark.value) if math.isfinite(edge)]
    ends = [end for mark in marks for end in mark.interval or () if math.isfinite(end)]
    if unit in LOGARITHMIC:
        edges = [math.log10(edge) for edge in edges]
        # A decade on both sides, and room for its number.
        return Scale(min(edges) - 1.2, max(edges) + 1.2, END, WIDTH - END)
    return Scale(*limits([0.0, *edges], ends), END, WIDTH - END)


def _place(scale: Scale, value: float, unit: str) -> float:
    if unit in LOGARITHMIC and math.isfinite(value):
        value = math.log10(value)
    return scale.at(value)


def _axis(scale: Scale, unit: str, floor: int) -> Iterator[str]:
    if unit in LOGARITHMIC:
        values = [10.0**power for power in range(math.ceil(scale.low), math.floor(scale.high) + 1)]
    else:
        values = ticks(scale.low, scale.high, 4)
    for value in values:
        at = _place(scale, value, unit)
        if not EDGE <= at <= WIDTH - EDGE:
            continue
        text = setting(value) if unit in LOGARITHMIC else change(value, unit, places=_places(values))
        yield f'<path class="grid" d="M{at} 0V{floor}"/><text class="tick" x="{at}" y="{floor + 14}">{text}</text>'
    if unit not in LOGARITHMIC:
        yield f'<path class="zero" d="M{scale.at(0)} 0V{floor}"/>'


def _places(values: list[float]) -> int:
    """Decimals of points at which neighbouring numbers of the axis differ."""
    return 0 if all(float(f"{100 * value:.0f}") == round(100 * value, 9) for value in values) else 1


def _row(scale: Scale, mark: Mark, unit: str, top: int) -> Iterator[str]:
    """A label, the range below it, and this study's number with its interval on the range."""
    start, end = (_place(scale, edge, unit) for edge in mark.said)
    if end - start < LEAST_BAND:
        start, end = start - LEAST_BAND / 2, start + LEAST_BAND / 2
    yield f'<rect class="said" x="{start:g}" y="{top + 16}" width="{end - start:g}" height="{ROW - 18}"/>'
    yield f'<text x="{END}" y="{top + 12}">{escape(mark.label)}</text>'
    at, middle = _place(scale, mark.value, unit), top + 24
    if mark.interval is not None:
        low, high = mark.interval
        yield f'<path class="interval" d="M{scale.at(low)} {middle}H{scale.at(high)}"/>'
        for edge, arrow in ((low, "M5-4L0 0L5 4"), (high, "M-5-4L0 0L-5 4")):
            if not scale.holds(edge):
                yield f'<path class="interval" d="{arrow}" transform="translate({scale.at(edge)} {middle})"/>'
    yield f'<path class="own" d="{SHAPES[0]}" transform="translate({at} {middle}) scale(.75)"/>'


def _numbers(mark: Mark, unit: str) -> str:
    """The text of a mark: its value and its range."""
    if unit in LOGARITHMIC:
        low, high = (setting(float(f"{edge:.2g}")) for edge in mark.said)
        return f"{setting(mark.value)}, said {low if low == high else f'{low} to {high}'}"
    low, high = mark.said
    if math.isinf(low):
        said = f"said {change(high, unit) if high else 'below 0'}"
    elif math.isinf(high):
        said = f"said above {change(low, unit) if low else '0'}"
    else:
        said = f"said {between(low, high, unit)}"
    return f"{change(mark.value, unit, words=True)} ({between(*mark.interval, unit)}), {said}"
