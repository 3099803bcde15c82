"""Everything that the first screen shows, as plain values and two drawings."""

from typing import Any

from markupsafe import Markup

from loragrid.formatting import duration, plain_name
from loragrid.reporting.first_screen.cards import cards
from loragrid.reporting.first_screen.checks import failed_checks
from loragrid.reporting.first_screen.gain_map import NARROW, WIDE, MapAxes, gain_map, leaves_figure, named_points
from loragrid.reporting.first_screen.map_points import MapPoint, map_points
from loragrid.reporting.first_screen.steps import steps
from loragrid.reporting.page import Material


def first_screen(material: Material, origin: dict[str, Any]) -> dict[str, Any]:
    """`cards`, `steps`, `maps` (the figure for wide and narrow screens) and `map_caption`; `finished`
    and `cost`, for the index of reports.

    `origin`: the section on provenance. Without a measured retention there is no figure.
    """
    compared = material.compared
    points = map_points(material) if compared.target else []
    maps, caption = [], ""
    if points:
        margin = compared.summary["terms"]["retention_margin"]
        axes = MapAxes(plain_name(compared.target), compared.unit == "share", margin)
        maps = [Markup(gain_map(points, axes, layout)) for layout in (WIDE, NARROW)]
        caption = map_caption(points, margin, arrows=any(leaves_figure(points, axes, one) for one in (WIDE, NARROW)))
    return {
        "cards": cards(compared, failed_checks(material, origin)),
        "steps": steps(material),
        "maps": maps,
        "map_caption": caption,
        # For the index of all reports.
        "finished": max((run["finished"] for run in origin["runs"]), default=""),
        "cost": cost_text(material),
    }


def cost_text(material: Material) -> str:
    """The time of all finished training and scoring, 4.6 min; empty before any."""
    trained = [outcome.record.train_seconds for outcome in material.outcomes if outcome.record]
    scored = [outcome.score.seconds for outcome in material.outcomes if outcome.score]
    return duration(sum(trained) + sum(scored)) if trained else ""


def map_caption(points: list[MapPoint], margin: float, *, arrows: bool) -> str:
    """What the marks of the figure are, as far as it shows them. `arrows`: whether an interval leaves it."""
    named = named_points(points)
    accepted = f"Green: a loss of up to {100 * margin:g} points, accepted if no part of the interval is below."
    parts = ["Up and to the right is best.", accepted]
    if any(point.seeds for point in named):
        parts.append("Large: mean of a setting with intervals; small: its seeds.")
    if any(point.one_seed for point in named):
        parts.append("Hollow: one seed, interval for other items only.")
    if arrows:
        parts.append("Arrow: the interval goes on beyond the figure.")
    if len(named) < len(points):
        parts.append(
            f"Named are {len(named)} of {len(points)} settings: the first, and those that no other beats in both."
        )
    return " ".join(parts)
