"""What the figure of the first screen shows: each setting's gain and retention, its seeds, its intervals."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from loragrid.comparing.contrasts import ADAPTERS
from loragrid.comparing.trade_off import SHIP
from loragrid.formatting import plain_name, plural, visible
from loragrid.reporting.first_screen.amounts import with_interval
from loragrid.reporting.page import Material

LONGEST_NAME = 60  # characters of a setting's label


@dataclass(frozen=True)
class Spot:
    """A place with its intervals: gain on the target (x) and change in retention (y), positive where good."""

    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float


@dataclass(frozen=True)
class MapPoint:
    """A setting: its mean, the (gain, kept) of its single seeds, its name, and its numbers as a sentence.

    `one_seed`: it is one adapter. `ship`: it is fit to ship. `front`: no other has better means in both.
    """

    label: str
    spot: Spot
    seeds: list[tuple[float, float]]
    numbers: str
    one_seed: bool
    ship: bool
    front: bool


def map_points(material: Material) -> list[MapPoint]:
    """The compared settings whose retention was measured, in the grid's order."""
    table = material.scores.set_index(["subject", "task"])["value"]
    return [_point(material, row, table) for row in material.compared.summary["trade_offs"] if row["kept"] is not None]


def _point(material: Material, row: dict[str, Any], table: pd.Series) -> MapPoint:
    spot = Spot(*(row[name] for name in ("gain", "kept", "gain_low", "gain_high", "kept_low", "kept_high")))
    found = [seed_changes(material, run, row["base"], table) for run in row["runs"].split()]
    label = visible(material.compared.setting_labels[row["run"]], LONGEST_NAME)
    one_seed = row["level"] == ADAPTERS
    seeds = [] if one_seed else [seed for seed in found if seed is not None]
    return MapPoint(
        label, spot, seeds, _numbers(material, row, label), one_seed, row["ship"] == SHIP, bool(row["pareto"])
    )


def seed_changes(material: Material, run: str, base: str, table: pd.Series) -> tuple[float, float] | None:
    """Gain on the target and mean change in retention of one run; None if a score is missing."""
    compared, summary = material.compared, material.compared.summary
    retention = [
        name for name, task in summary["tasks"].items() if task["group"] == "retention" and task["unit"] == "share"
    ]
    changes = []
    for task in (compared.target, *retention):
        if (run, task) not in table.index or (base, task) not in table.index:
            return None
        sign = 1 if compared.is_higher_better(task) else -1
        changes.append(sign * float(table[(run, task)] - table[(base, task)]))
    return changes[0], sum(changes[1:]) / len(retention)


def _numbers(material: Material, row: dict[str, Any], label: str) -> str:
    """A setting's numbers: "rank 64 (2 seeds): running plan +27 points (…); mean retention −5 points (…)"."""
    compared = material.compared
    kept = f"mean retention {with_interval(row, 'kept', 'share')}"
    gain = f"gain on {plain_name(compared.target)} {with_interval(row, 'gain', compared.unit)}"
    return f"{label} ({plural(row['seeds'], 'seed')}): {gain}; {kept}"
