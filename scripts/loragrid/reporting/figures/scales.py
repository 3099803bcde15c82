"""Scales and ticks of a figure that is written as SVG by hand."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = (1, 2, 2.5, 5, 10)  # times a power of ten
ROOM = 0.05  # of an axis beyond the outermost mark
MOST_BEYOND = 0.6  # of the marks' span that intervals may add at each end


@dataclass(frozen=True)
class Scale:
    """A linear scale from `low`..`high` in data to `start`..`end` in the figure."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The place of a value; one outside the scale is at its edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def holds(self, value: float) -> bool:
        """Whether a value is within the scale."""
        return self.low <= value <= self.high


def limits(marks: Iterable[float], ends: Iterable[float]) -> tuple[float, float]:
    """The limits of an axis: all marks are within, and intervals' ends where they do not flatten the marks."""
    low, high = min(marks := list(marks)), max(marks)
    span = (high - low) or 1.0
    ends = [end for end in ends if math.isfinite(end)]
    low = max(min([low, *ends]), low - MOST_BEYOND * span)
    high = min(max([high, *ends]), high + MOST_BEYOND * span)
    room = ROOM * ((high - low) or span)
    return low - room, high + room


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round values within the limits."""
    least = (high - low) / most
    power = 10 ** math.floor(math.log10(least))
    step = next(step * power for step in STEPS if step * power >= least)
    first = math.ceil(low / step)
    # Rounded, since sums of tenths are not quite tenths.
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]
