"""The axis of a setting's values: evenly spaced, or by their logarithms where they are a ladder."""

import math
from dataclasses import dataclass
from itertools import pairwise

LADDER_FROM = 4.0  # times the smallest value: below that, spacing by logarithm says little
MOST_STRETCHED = 3.0  # times the even spacing; further apart, the marks would not fit
MOST_PLACES = 16.0  # of the nearest two values' distance in the whole figure, for the same reason


@dataclass(frozen=True)
class ValueAxis:
    """`values` as texts at their `places` with a `label` for the axis; `base_case`: index of its value, if scored."""

    values: list[str]
    places: list[float]
    label: str
    base_case: int | None = None

    @property
    def gap(self) -> float:
        """Room for the series beside each other at one value: 1 where values are evenly spaced."""
        steps = len(self.places) - 1
        return (self.places[-1] - self.places[0]) / steps if steps > 0 else 1.0


def value_axis(values: list[str], sizes: list[float | None], name: str, base_case: int | None) -> ValueAxis:
    """The axis of values with these sizes in ascending order, None for those without one."""
    places = ladder_places(sizes)
    if places is None:
        return ValueAxis(values, [float(place) for place in range(len(values))], name, base_case)
    return ValueAxis(values, places, f"{name}, by its logarithm", base_case)


def ladder_places(sizes: list[float | None]) -> list[float] | None:
    """The logarithms of the sizes, scaled so that the nearest two are 1 apart; None if they are no ladder."""
    if len(sizes) < 3 or any(size is None or not 0 < size < math.inf for size in sizes):
        return None
    logarithms = [math.log(size) for size in sizes]
    nearest = min(after - before for before, after in pairwise(logarithms))
    if nearest <= 0 or sizes[-1] < LADDER_FROM * sizes[0]:
        return None
    places = [(one - logarithms[0]) / nearest for one in logarithms]
    return places if places[-1] <= min(MOST_STRETCHED * (len(places) - 1), MOST_PLACES) else None
