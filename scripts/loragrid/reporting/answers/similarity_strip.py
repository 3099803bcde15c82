"""A small drawing of how similar the answers to one prompt are to its reference, a mark per model."""

from html import escape

from markupsafe import Markup

from loragrid.formatting import score
from loragrid.reporting.figures.style import CROSS, SERIES, SHAPES

WIDTH, END = 150, 8  # CSS pixels; END: from the edge to 0 % and 100 %
LANE = 7.5  # height of a model's line: similar answers would cover each other on one line


def mark(number: int) -> Markup:
    """The mark of the `number`-th model for a legend; number 0 is the base, a cross."""
    return Markup(f'<svg class="key" viewBox="-8 -8 16 16" aria-hidden="true">{_shape(number, 0, 0, 1)}</svg>')


def strip(similarities: list[tuple[str, float | None]]) -> Markup:
    """Marks from 0 % (left) to 100 % (right) for [(model, similarity)], a line each, the base first.

    Unknown ones are left out.
    """
    known = [(number, name, value) for number, (name, value) in enumerate(similarities) if value is not None]
    label = "; ".join(f"{name} {score(value, 'share')}" for _, name, value in known)
    heights = {number: LANE * (place + 0.5) for place, (number, _, _) in enumerate(known)}
    marks = "".join(
        _shape(number, END + value * (WIDTH - 2 * END), heights[number], 0.55) for number, _, value in known
    )
    line = f'<path class="line" d="{"".join(f"M{END} {at:g}H{WIDTH - END}" for at in heights.values())}"/>'
    return Markup(
        f'<svg class="strip" viewBox="0 0 {WIDTH} {LANE * max(1, len(known)):g}" role="img" '
        f'aria-label="Similarity to the reference: {escape(label or "unknown")}">{line}{marks}</svg>'
    )


def _shape(number: int, x: float, y: float, size: float) -> str:
    place = f'transform="translate({x:.1f} {y:g}) scale({size:g})"'
    if number == 0:
        return f'<path class="cross" d="{CROSS}" {place}/>'
    colour = SERIES[(number - 1) % len(SERIES)]
    return f'<path class="mark {colour}" d="{SHAPES[(number - 1) % len(SHAPES)]}" {place}/>'
