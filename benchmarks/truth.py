"""Are the verdicts true? Made-up studies whose effects are known, judged by the code that judges real ones.

    python -m benchmarks.truth [--studies 400] [--out FILE.json]       or: make truth

A study has a base case and seven departures, each trained under several seeds, one target task and three
retention tasks. An answer is right where a normal score is positive: the sum of the item's ease, of what the
setting does to the item, of the seed's luck and of chance. Seeds of the draws are fixed; every share is printed
with its Monte-Carlo standard error. About 20 minutes on one core.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import RESULTS, write
from loragrid.comparing.contrasts import ADAPTERS, SETTING, Side, contrast_row
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.measures import FAMILIES, TARGET, measures_of, spreads_of
from loragrid.comparing.terms import Terms
from loragrid.comparing.verdicts import judge
from loragrid.statistics.design_power import Design, NoiseVariances, smallest_difference
from loragrid.statistics.paired_statistics import BETTER
from loragrid.statistics.shrinkage import best_of

Row = dict[str, Any]
TERMS = Terms(
    correction="holm", alpha=0.05, power=0.8, bootstrap_draws=1000, seed=1, retention_margin=0.05, comparisons=100
)
TASKS = ("plans", "facts", "sums", "lists")
# Standard deviations of the normal score: an item's ease, what a setting does to an item, and chance.
EASE, OF_SETTING, CHANCE = 1.2, 0.3, 0.8
TOTAL = math.sqrt(EASE**2 + OF_SETTING**2 + CHANCE**2)
# How far the score moves per unit of the share of right answers, at a share of one half.
PER_SHARE = TOTAL * math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class World:
    """A study whose truth is known: per setting its seeds, the spread between them, and its gain.

    `seeds`, `sds` and `gains` have one entry per setting, the base case first. `sds` and `gains` are
    shares of right answers; a gain holds for the target alone, compared with the untrained base.
    """

    seeds: tuple[int, ...] = (3, *(2,) * 7)
    sds: tuple[float, ...] = (0.03,) * 8
    gains: tuple[float, ...] = (0.0,) * 8
    items: int = 400

    def subjects(self, setting: int) -> tuple[str, ...]:
        """Names of a setting's runs."""
        return tuple(f"{setting}/{seed}" for seed in range(self.seeds[setting]))

    def draw(self, rng: np.random.Generator) -> dict[str, ItemTable]:
        """Every subject's answers to every task."""
        return {task: self._task(task, rng) for task in TASKS}

    def _task(self, task: str, rng: np.random.Generator) -> ItemTable:
        ease = rng.normal(0, EASE, self.items)
        values = {"base": self._answers(ease, 0.0, 0.0, rng)}
        for setting, (sd, gain) in enumerate(zip(self.sds, self.gains)):
            shift = self._shift(gain if task == TASKS[0] else 0.0)
            own = ease + rng.normal(0, OF_SETTING, self.items)
            for subject in self.subjects(setting):
                values[subject] = self._answers(own, shift, sd, rng)
        items = np.array([str(item) for item in range(self.items)])
        return ItemTable(
            task=task, group="target" if task == TASKS[0] else "retention", metric="acc", higher_is_better=True,
            items=items, values=values, weights=None, clusters=None, requests=items, unit="share", binary=True,
        )  # fmt: skip

    def _answers(self, ease: np.ndarray, shift: float, sd: float, rng: np.random.Generator) -> np.ndarray:
        luck = rng.normal(0, sd * PER_SHARE)
        return (ease + shift + luck + rng.normal(0, CHANCE, self.items) > 0).astype(float)

    def _shift(self, gain: float) -> float:
        """The move of the score that raises the share of right answers by `gain` from one half."""
        from scipy.stats import norm

        return float(TOTAL * norm.ppf(0.5 + gain))


@dataclass(frozen=True)
class Judged:
    """The judged rows of one made-up study, with the true difference of each in `truth`."""

    rows: list[Row]

    def false(self, level: str, family: str | None = None) -> bool:
        """Whether a statement is made about a difference that is not there."""
        return any(
            row["p_corrected"] < TERMS.alpha and row["truth"] == 0
            for row in self.rows
            if row["level"] == level and family in (None, row["family"])
        )


def judged(world: World, rng: np.random.Generator) -> Judged:
    """Draw a study and judge every setting against the untrained base, and every departure against the base case."""
    measures = measures_of(world.draw(rng), TASKS[0])
    settings = range(len(world.seeds))
    spreads = spreads_of(measures, [world.subjects(setting) for setting in settings])
    rows = []
    for measure in measures:
        base = Side(("base",), -1.0, trained=False)
        case = Side(world.subjects(0), -1.0, trained=True)
        for setting in settings:
            side = Side(world.subjects(setting), 1.0, trained=True)
            gain = world.gains[setting] * (measure.name == TASKS[0])
            rows.append({"against": "base", "truth": gain} | contrast_row(measure, [[base, side]], spreads, TERMS))
            if setting:
                lead = gain - world.gains[0] * (measure.name == TASKS[0])
                rows.append({"against": "case", "truth": lead} | contrast_row(measure, [[case, side]], spreads, TERMS))
    judge(rows, {measure.name: measure for measure in measures}, TERMS)
    return Judged(rows)


@dataclass(frozen=True)
class Share:
    """A share of made-up studies with its Monte-Carlo standard error, and the goal for it."""

    what: str
    value: float
    error: float
    goal: str

    @classmethod
    def of(cls, what: str, hits: Any, goal: str) -> "Share":
        """The share of true values among `hits`."""
        hits = np.asarray(hits, dtype=float)
        return cls(what, float(hits.mean()), float(hits.std() / math.sqrt(len(hits))), goal)

    def line(self) -> str:
        """The share as a line of the printed table."""
        return f"{self.what:<78}{100 * self.value:6.1f} % ± {100 * self.error:.1f}   {self.goal}"


def studies(world: World, count: int, seed: int) -> Iterator[Judged]:
    """`count` made-up studies of one world."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield judged(world, rng)


def false_verdicts(count: int) -> Iterator[Share]:
    """Studies without any effect: how many make a false statement about a setting, by family and by spread."""
    for items in (100, 400, 1000):
        found = list(studies(World(items=items), count, seed=items))
        for family in FAMILIES:
            what = f"no effect, seeds of SD 3 points, {items} items: a false verdict, family {family}"
            yield Share.of(what, [study.false(SETTING, family) for study in found], "≤ 5 %")
        if items == 400:
            rows = [row for study in found for row in study.rows]
            yield Share.of("  intervals of settings that hold the truth", [_covers(row) for row in rows], "93–97 %")
    one = World(seeds=(1,) * 8)
    what = "  the same with one seed an arm: “adapters differ” (true of these adapters)"
    yield Share.of(what, [study.false(ADAPTERS, TARGET) for study in studies(one, count, seed=1)], "no statement")


def _covers(row: Row) -> bool:
    return row["low"] <= row["truth"] <= row["high"]


UNEQUAL = {
    "base case SD 1, one departure SD 5, 3 seeds each": World((3, 3), (0.01, 0.05), (0.0, 0.0)),
    "base case SD 1 of 5 seeds, one departure SD 5 of 2": World((5, 2), (0.01, 0.05), (0.0, 0.0)),
    "base case SD 1, seven departures SD 5": World(sds=(0.01, *(0.05,) * 7)),
    "base case SD 1, six departures SD 1, one SD 5, 3 seeds each": World((3,) * 8, (*(0.01,) * 7, 0.05)),
    "base case SD 1, six departures SD 1, one SD 5, 2 seeds": World(sds=(*(0.01,) * 7, 0.05)),
}


def unequal_arms(count: int) -> Iterator[Share]:
    """Settings of which some vary five times as much: false verdicts on the target, of all comparisons of axes."""
    for name, world in UNEQUAL.items():
        found = list(studies(world, count, seed=5))
        yield Share.of(f"{name}: a false verdict, family target", [s.false(SETTING, TARGET) for s in found], "≤ 6 %")


def power(count: int) -> Iterator[Share]:
    """The stated smallest difference, planted in one departure: how often it is found."""
    noise = NoiseVariances(item=_item_variance(), seed=0.03**2, item_seed=_flip_variance())
    for seeds, items in (((5, *(3,) * 7), 400), ((5, *(3,) * 7), 1000), ((5,) * 8, 400)):
        # Eight settings against the base and seven departures against the base case are one family.
        design = Design(items, (seeds[0], seeds[1]), seeds[2:], TERMS.alpha / 15)
        least = smallest_difference(design, noise, power=TERMS.power)
        world = World(seeds, gains=(0.0, least, *(0.0,) * 6), items=items)
        hits = [_found(study, least) for study in studies(world, count, seed=7)]
        what = f"a difference of {100 * least:.1f} points, stated for {items} items, seeds {seeds[0]} and {seeds[1]}: found"
        yield Share.of(what, hits, "75–85 %")


def _found(study: Judged, difference: float) -> bool:
    """Whether the planted departure is found better than the base case."""
    return any(
        row["verdict"] == BETTER
        for row in study.rows
        if row["family"] == TARGET and row["against"] == "case" and row["truth"] == difference
    )


def _item_variance() -> float:
    """Variance of the difference between two settings on an item, the same under every seed."""
    return 2 * (_agreement(EASE**2 + OF_SETTING**2) - _agreement(EASE**2))


def _flip_variance() -> float:
    """Variance of one answer under another seed."""
    return 0.25 - _agreement(EASE**2 + OF_SETTING**2)


def _agreement(shared: float) -> float:
    """Covariance of two right/wrong answers whose normal scores share this variance (Sheppard 1899)."""
    return math.asin(shared / TOTAL**2) / (2 * math.pi)


def selection(count: int) -> Iterator[Share]:
    """The largest of eight gains: how far it is from its truth, as measured and as the page quotes it."""
    for gains, name in (((0.1,) * 8, "eight equal settings"), (tuple(np.linspace(0.04, 0.16, 8)), "eight settings")):
        errors, covered = [], []
        for study in studies(World(gains=gains), count, seed=11):
            rows = [row for row in study.rows if row["family"] == TARGET and row["against"] == "base"]
            found = best_of(np.array([row["difference"] for row in rows]), np.array([row["stderr"] for row in rows]))
            truth = rows[found.index]["truth"]
            errors.append((rows[found.index]["difference"] - truth, found.value - truth))
            covered.append(found.low <= truth <= found.high)
        raw, shrunken = np.mean(errors, axis=0)
        what = f"best of {name} ({100 * raw:+.1f} points off as measured, {100 * shrunken:+.1f} shrunken): interval"
        yield Share.of(what, covered, "≥ 93 %")


PARTS: dict[str, Callable[[int], Iterator[Share]]] = {
    "false verdicts": false_verdicts,
    "unequal spread": unequal_arms,
    "power": power,
    "selection": selection,
}


def main() -> None:
    """Print every share, and write them with the machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=400, help="made-up studies per line (default: 400)")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--out", type=Path, default=RESULTS / "truth.json")
    options = parser.parse_args()
    found = []
    for part in options.part or PARTS:
        for share in PARTS[part](options.studies):
            print(share.line(), flush=True)
            found.append(vars(share))
    write(options.out, {"benchmark": "truth", "studies": options.studies, "shares": found})


if __name__ == "__main__":
    main()
