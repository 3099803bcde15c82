"""How much scores are expected to vary, before anything is measured and from this study's comparisons."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from loragrid.runtime.atomic_files import read_json
from loragrid.statistics.design_power import NoiseVariances
from loragrid.statistics.seed_spread import FEWEST_DF

# ASSUME: variances per right/wrong item. A setting and its base, or two settings, differ on an item by the
# first two whatever the seed, and one answer changes with the seed by the third: another seed changes 16 %
# of the answers, half of them each way. Slightly above the medians of 14 settings of the demo studies
# (0.06, 0.01 and 0.08; two seeds each, collapsed settings left out).
BASE_ITEM, SETTING_ITEM, ITEM_SEED = 0.08, 0.02, 0.08
# ASSUME: on many items a run's score varies by two points between seeds. Of 63 published LoRA runs the
# same configuration moved by a median of 1.9 points between library versions, and the median difference of
# two runs is 0.95 standard deviations of one. The demo's small models vary more (2.6 to 4.4 points).
SEED_SD = 0.02
ASSUMED = (
    f"assumed: another seed moves a score by {100 * SEED_SD:g} points (standard deviation) and changes "
    f"{200 * ITEM_SEED:g} % of the answers"
)
MEASURED = "measured on this study's runs"


@dataclass(frozen=True)
class ExpectedNoise:
    """Noise of a score against the untrained base and between two settings, and its source.

    `units_per_item`: independent units per item, below 1 where items share a passage or a request; 1
    before anything is measured.
    """

    versus_base: NoiseVariances
    between_settings: NoiseVariances
    source: str
    units_per_item: float = 1.0


def assumed_noise(tasks: int = 1, unequal: float = 1.0) -> ExpectedNoise:
    """Noise of right/wrong items, or of a mean over several tasks.

    `unequal`, 1 for tasks of one size, raises the variances per item of a mean over tasks of several.
    """
    # ASSUME: the effects of a seed on two tasks are independent.
    seed, item_seed = SEED_SD**2 / tasks, ITEM_SEED * unequal
    return ExpectedNoise(
        NoiseVariances(BASE_ITEM * unequal, seed, item_seed),
        NoiseVariances(SETTING_ITEM * unequal, seed, item_seed),
        ASSUMED,
    )


def measured_noise(results: Path) -> dict[str, ExpectedNoise]:
    """Task, or "retention" for their mean → the noise of the comparisons made so far; empty without any.

    Variances over items are medians over settings. The spread between seeds is the pooled one, and
    assumed where it has too few degrees of freedom.
    """
    folder = results / "compare"
    if not (folder / "compare.json").is_file():
        return {}
    spreads = read_json(folder / "compare.json").get("seed_spreads", {})
    of_base, of_settings = _rows(folder / "comparisons.csv"), _rows(folder / "axes.csv")
    return {task: _noise(of_base[task], of_settings.get(task, []), spreads.get(task)) for task in of_base}


def _rows(file: Path) -> dict[str, list[dict[str, float]]]:
    """Task → its comparisons of settings, as the numbers that are needed of them."""
    found: dict[str, list[dict[str, float]]] = {}
    if not file.is_file():
        return found
    names = ("item_variance", "item_seed_variance", "units", "items")
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            # Without a test, or with one seed, a row has no such variances.
            if row.get("level") == "setting" and row.get("item_variance"):
                found.setdefault(row["task"], []).append({name: float(row[name]) for name in names})
    return found


def _noise(
    of_base: list[dict[str, float]], of_settings: list[dict[str, float]], spread: Mapping[str, Any] | None
) -> ExpectedNoise:
    units = median(row["units"] for row in of_base)
    item_seed = median(row["item_seed_variance"] for row in (*of_base, *of_settings))
    seed, source = _seed_variance(spread, item_seed / units)
    item = median(row["item_variance"] for row in of_base)
    between = median(row["item_variance"] for row in of_settings) if of_settings else SETTING_ITEM
    return ExpectedNoise(
        NoiseVariances(item, seed, item_seed),
        NoiseVariances(between, seed, item_seed),
        source,
        min(1.0, units / median(row["items"] for row in of_base)),
    )


def _seed_variance(spread: Mapping[str, Any] | None, of_items: float) -> tuple[float, str]:
    """The variance between seeds on many items, and its source; `of_items` is the share of the items."""
    pooled = (spread or {}).get("pooled")
    if pooled is None or pooled["df"] < FEWEST_DF:
        return SEED_SD**2, f"{MEASURED}, with an assumed spread of {100 * SEED_SD:g} points between seeds"
    # The spread on the study's own items holds both; a variance is not negative.
    return max(pooled["sd"] ** 2 - of_items, 0.0), MEASURED
