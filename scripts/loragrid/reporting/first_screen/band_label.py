"""Where the words of the accepted loss go in the figure of the first screen: where they cross no mark."""

from collections.abc import Iterator
from dataclasses import dataclass

from loragrid.reporting.figures.scales import Scale
from loragrid.reporting.first_screen.map_points import MapPoint

LETTER_PX, LINE_PX = 6.3, 12
MARK_PX = 8  # from the middle of a mark to its edge; half of it for a seed


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the figure; y grows downwards."""

    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether the two have a pixel in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def label_box(x: Scale, y: Scale, band: tuple[float, float], points: list[MapPoint], letters: int) -> Box:
    """The place for so many letters at a band: the one that the fewest marks meet, the first of equals.

    `band`: pixels of its upper and lower edge.
    """
    marks = list(_marks(x, y, points))
    places = list(_places(x, y, band, letters * LETTER_PX))
    return min(places, key=lambda place: sum(place.meets(mark) for mark in marks))


def _places(x: Scale, y: Scale, band: tuple[float, float], width: float) -> Iterator[Box]:
    """In the band's lower corners, then under it, then in its upper corners."""
    top, floor = band
    lefts = (x.start + 5, x.end - 5 - width)
    tops = [floor - LINE_PX - 2]
    if floor + LINE_PX + 3 < y.start:
        tops.append(floor + 3)
    tops.append(top + 2)
    for upper in tops:
        for left in lefts:
            yield Box(left, left + width, upper, upper + LINE_PX)


def _marks(x: Scale, y: Scale, points: list[MapPoint]) -> Iterator[Box]:
    """What the figure draws: the base, and of each setting its mean, seeds and intervals."""
    yield _around(x.at(0), y.at(0), MARK_PX)
    for point in points:
        spot = point.spot
        at_x, at_y = x.at(spot.x), y.at(spot.y)
        yield _around(at_x, at_y, MARK_PX)
        yield Box(x.at(spot.x_low), x.at(spot.x_high), at_y - 1, at_y + 1)
        # Upwards is a smaller y.
        yield Box(at_x - 1, at_x + 1, y.at(spot.y_high), y.at(spot.y_low))
        for gain, kept in point.seeds:
            yield _around(x.at(gain), y.at(kept), MARK_PX / 2)


def _around(at_x: float, at_y: float, reach: float) -> Box:
    return Box(at_x - reach, at_x + reach, at_y - reach, at_y + reach)
