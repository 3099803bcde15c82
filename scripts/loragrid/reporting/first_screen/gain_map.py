"""The first screen's figure: what each setting gained on the target against what it kept.

Written as SVG by hand, not drawn by matplotlib: every setting is a group that a pointer or the keyboard can
reach, with its numbers as its name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from textwrap import fill

from loragrid.formatting import MINUS
from loragrid.reporting.figures.scales import Scale, limits, ticks
from loragrid.reporting.figures.style import CROSS, SERIES, SHAPES, spread_labels
from loragrid.reporting.first_screen.band_label import label_box
from loragrid.reporting.first_screen.map_points import MapPoint

MOST_NAMED = 10  # settings with a name, seeds and intervals; the others are grey dots


@dataclass(frozen=True)
class Layout:
    """Sizes of the figure in CSS pixels. `names`: width of the column of names; `letters`: of a line of a name."""

    key: str
    width: int
    height: int
    names: int
    letters: int
    left: int = 54
    bottom: int = 44
    top: int = 12


WIDE = Layout("wide", 640, 400, names=150, letters=20)
NARROW = Layout("narrow", 350, 300, names=114, letters=14, left=50, bottom=38)


@dataclass(frozen=True)
class MapAxes:
    """The target's name, whether it is a share, and the margin of retention that is accepted as a loss."""

    target: str
    share: bool
    margin: float


@dataclass(frozen=True)
class Frame:
    """Both scales of a figure with its layout and axes."""

    x: Scale
    y: Scale
    layout: Layout
    axes: MapAxes


def gain_map(points: list[MapPoint], axes: MapAxes, layout: Layout) -> str:
    """The figure as an SVG element; empty without settings."""
    if not points:
        return ""
    named = named_points(points)
    rest = [point for point in points if point not in named]
    frame = _frame(points, named, axes, layout)
    label = f"gain-map-{layout.key}-title"
    size = f'viewBox="0 0 {layout.width} {layout.height}" class="gain-map {layout.key}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="group" aria-labelledby="{label}">',
        f'<title id="{label}">Gain on {escape(axes.target)} against the change in retention, by setting</title>',
        *_background(frame, points),
        *(_dot(frame, point) for point in rest),
        *_settings(frame, named),
        "</svg>",
    ]
    return "".join(parts)


def leaves_figure(points: list[MapPoint], axes: MapAxes, layout: Layout) -> bool:
    """Whether an interval of a named setting goes on beyond the figure and ends in an arrow."""
    named = named_points(points)
    frame = _frame(points, named, axes, layout)
    return any(next(_arrows(frame, point), None) is not None for point in named)


def named_points(points: list[MapPoint]) -> list[MapPoint]:
    """All settings if they are few, else the first of the grid and those that no other beats in both."""
    if len(points) <= MOST_NAMED:
        return points
    front = sorted((point for point in points if point.front), key=lambda point: -point.spot.x)
    chosen = [points[0], *(point for point in front if point is not points[0])][:MOST_NAMED]
    return [point for point in points if point in chosen]


def _frame(points: list[MapPoint], named: list[MapPoint], axes: MapAxes, layout: Layout) -> Frame:
    seeds = [seed for point in named for seed in point.seeds]
    spots, wide = [point.spot for point in points], [point.spot for point in named]
    xs = limits([0, *(s.x for s in spots), *(x for x, _ in seeds)], [end for s in wide for end in (s.x_low, s.x_high)])
    ys = limits(
        [0, -axes.margin, *(s.y for s in spots), *(y for _, y in seeds)], [e for s in wide for e in (s.y_low, s.y_high)]
    )
    right, floor = layout.width - layout.names, layout.height - layout.bottom
    return Frame(Scale(*xs, layout.left, right), Scale(*ys, floor, layout.top), layout, axes)


def _background(frame: Frame, points: list[MapPoint]) -> Iterator[str]:
    """Band, grid, axes, their words, and the base at the origin."""
    x, y, layout, axes = frame.x, frame.y, frame.layout, frame.axes
    top, floor = y.at(0), y.at(-axes.margin)
    yield f'<rect class="band" x="{x.start}" y="{top}" width="{x.end - x.start}" height="{round(floor - top, 1)}"/>'
    for value in ticks(x.low, x.high, 6 if layout is WIDE else 4):
        yield f'<path class="grid" d="M{x.at(value)} {y.start}V{y.end}"/>'
        yield _text(x.at(value), y.start + 14, _tick(value, axes.share), "tick middle")
    for value in ticks(y.low, y.high, 6):
        yield f'<path class="grid" d="M{x.start} {y.at(value)}H{x.end}"/>'
        yield _text(x.start - 5, y.at(value) + 4, _tick(value, share=True), "tick end")
    yield f'<path class="zero" d="M{x.at(0)} {y.start}V{y.end}M{x.start} {y.at(0)}H{x.end}"/>'
    if layout is WIDE:
        words = f"accepted loss, {100 * axes.margin:g} points"
        box = label_box(x, y, (top, floor), points, len(words))
        yield _text(box.left, box.bottom - 2, words, "tick")
    points = ", points" if axes.share else ""
    middle = (x.start + x.end) / 2
    yield _text(middle, layout.height - 6, fill_one(f"gained on {axes.target}{points} →", layout), "word middle")
    yield (
        f'<text class="word middle" transform="translate(12 {(y.start + y.end) / 2}) rotate(-90)">'
        "change on the retention tasks, points →</text>"
    )
    yield f'<path class="base" d="{CROSS}" transform="translate({x.at(0)} {y.at(0)})"/>'
    room = x.at(0) - x.start
    words = "untrained base" if room > 96 else "base"
    yield _text(x.at(0) - 8, y.at(0) - 8, words, "word end" if room > 40 else "word")


def fill_one(text: str, layout: Layout) -> str:
    """A text shortened to the width of the plot."""
    most = (layout.width - layout.names) // 6
    return text if len(text) <= most else f"{text[: most - 3]}… →"


def _tick(value: float, share: bool) -> str:
    text = f"{100 * value if share else value:+.4g}"
    return "0" if float(text) == 0 else text.replace("-", MINUS)


def _text(x: float, y: float, text: str, classes: str) -> str:
    return f'<text class="{classes}" x="{round(x, 1)}" y="{round(y, 1)}">{escape(text)}</text>'


def _dot(frame: Frame, point: MapPoint) -> str:
    """A setting of many: a grey dot with its numbers, no stop of the keyboard."""
    name = escape(point.numbers)
    place = f'cx="{frame.x.at(point.spot.x)}" cy="{frame.y.at(point.spot.y)}"'
    return f'<circle class="other" {place} r="2.5" data-numbers="{name}"/>'


def _settings(frame: Frame, points: list[MapPoint]) -> Iterator[str]:
    """Each named setting: seeds, intervals, mean, and its name in the column on the right."""
    names = [fill(point.label, frame.layout.letters, max_lines=2, placeholder="…") for point in points]
    gap = 16 + 13 * max(name.count("\n") for name in names)
    room = frame.layout.height - frame.layout.top - frame.layout.bottom
    heights = spread_labels([frame.y.at(point.spot.y) for point in points], min(gap, room / len(points)))
    shift = min(0.0, frame.y.start - max(heights)) + max(0.0, frame.layout.top + 8 - min(heights))
    for number, (point, name, height) in enumerate(zip(points, names, heights, strict=True)):
        mark = "one-seed" if point.one_seed else "means"
        colour = SERIES[number % len(SERIES)]
        inside = "".join([*_marks(frame, point, number), *_name(frame, point, name, height + shift, number)])
        numbers = escape(point.numbers)
        yield (
            f'<g class="setting {colour} {mark}" tabindex="0" role="img" aria-label="{numbers}" '
            f'data-numbers="{numbers}">{inside}</g>'
        )


def _marks(frame: Frame, point: MapPoint, number: int) -> Iterator[str]:
    x, y, spot = frame.x, frame.y, point.spot
    at_x, at_y, shape = x.at(spot.x), y.at(spot.y), SHAPES[number % len(SHAPES)]
    for gain, kept in point.seeds:
        yield f'<path class="to-seed" d="M{at_x} {at_y}L{x.at(gain)} {y.at(kept)}"/>'
    across, upright = (
        f"M{x.at(spot.x_low)} {at_y}H{x.at(spot.x_high)}",
        f"M{at_x} {y.at(spot.y_low)}V{y.at(spot.y_high)}",
    )
    yield f'<path class="interval" d="{across}{upright}"/>'
    yield from _arrows(frame, point)
    for gain, kept in point.seeds:
        yield f'<path class="seed" d="{shape}" transform="translate({x.at(gain)} {y.at(kept)}) scale(.5)"/>'
    yield f'<path class="mean" d="{shape}" transform="translate({at_x} {at_y})"/>'


def _arrows(frame: Frame, point: MapPoint) -> Iterator[str]:
    """An arrow where an interval leaves the figure."""
    x, y, spot = frame.x, frame.y, point.spot
    places = (
        (spot.x_low, x, "M6-4L0 0L6 4", (x.start, y.at(spot.y))),
        (spot.x_high, x, "M-6-4L0 0L-6 4", (x.end, y.at(spot.y))),
        (spot.y_low, y, "M-4-6L0 0L4-6", (x.at(spot.x), y.start)),
        (spot.y_high, y, "M-4 6L0 0L4 6", (x.at(spot.x), y.end)),
    )
    for end, scale, arrow, (at_x, at_y) in places:
        if not scale.holds(end):
            yield f'<path class="interval" d="{arrow}" transform="translate({at_x} {at_y})"/>'


def _name(frame: Frame, point: MapPoint, name: str, height: float, number: int) -> Iterator[str]:
    """The setting's shape and name in the column on the right, joined to its mean."""
    left, height = frame.x.end + 20, round(height, 1)
    lines, shape = name.split("\n"), SHAPES[number % len(SHAPES)]
    first = height + 4 - 6.5 * (len(lines) - 1)
    yield f'<path class="lead" d="M{frame.x.at(point.spot.x)} {frame.y.at(point.spot.y)}L{left - 9} {height}"/>'
    yield f'<path class="mean" d="{shape}" transform="translate({left} {height}) scale(.8)"/>'
    for place, line in enumerate(lines):
        yield _text(left + 10, first + 13 * place, line, "name-of")
