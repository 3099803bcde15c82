"""The words of the accepted loss cross no mark if any place is free."""

from loragrid.reporting.figures.scales import Scale
from loragrid.reporting.first_screen.band_label import Box, label_box
from loragrid.reporting.first_screen.map_points import MapPoint, Spot

X, Y = Scale(-0.2, 0.5, 50, 490), Scale(-0.3, 0.05, 350, 0)
BAND = Y.at(0), Y.at(-0.05)


def point(spot: Spot) -> MapPoint:
    return MapPoint("rank 64", spot, [], "numbers", False, False, False)


def test_the_lower_left_corner_is_first() -> None:
    free = label_box(X, Y, BAND, [point(Spot(0.4, -0.2, 0.3, 0.5, -0.25, -0.15))], 20)
    assert free.left == X.start + 5 and BAND[0] < free.top and free.bottom < BAND[1]


def test_an_interval_through_the_band_moves_the_words_under_it() -> None:
    across = point(Spot(0.2, -0.04, -0.3, 0.6, -0.06, -0.02))
    moved = label_box(X, Y, BAND, [across], 20)
    assert moved.left == X.start + 5 and moved.top > BAND[1]


def test_boxes_meet_where_they_share_pixels() -> None:
    assert Box(0, 10, 0, 10).meets(Box(9, 20, 9, 20)) and not Box(0, 10, 0, 10).meets(Box(10, 20, 0, 10))
