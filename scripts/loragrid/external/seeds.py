"""Runs that differ in nothing but the seed, pooled: a setting against the base, and against another one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loragrid.external.runs import ExternalRun, ScoreKey, is_absent, shortened
from loragrid.external.score_tests import ALPHA, ScoreTest, standard_error
from loragrid.formatting import listed, plural
from loragrid.statistics.seed_spread import SeedSpread, seed_spreads
from loragrid.statistics.setting_contrasts import SEEDS_T, Arm, ItemPart, SeedShare, contrast_test, item_part

# In the name of a run that states no seed: lora-seed1, r16_s2.
SEED_IN_NAME = re.compile(r"(?:(?<=[-_/. ])|^)(?:seed|s)[-_=]?(\d+)(?=$|[-_/. ])", re.IGNORECASE)
# Degrees of freedom of an error over items whose number is unknown.
MANY = 1e6
LONGEST_LABEL = 60


@dataclass(frozen=True)
class Setting:
    """Runs of one setting under several seeds; `values` are the settings that its runs share."""

    label: str
    values: dict[str, Any]
    runs: tuple[ExternalRun, ...]


def settings_of(runs: Sequence[ExternalRun]) -> list[Setting]:
    """The settings that were trained under two seeds or more."""
    groups: dict[tuple[Any, ...], dict[str, ExternalRun]] = {}
    for run in runs:
        seed, rest = _seed(run)
        if seed is not None:
            # A second run with the same seed is a repetition and no draw of another seed.
            groups.setdefault(rest, {}).setdefault(seed, run)
    several = [tuple(seeds.values()) for seeds in groups.values() if len(seeds) > 1]
    varied = _varied([_shared(runs) for runs in several])
    return [Setting(_label(runs, varied), _shared(runs), runs) for runs in several]


def against_base(setting: Setting, base: ExternalRun, key: ScoreKey) -> ScoreTest | None:
    """The mean over a setting's seeds against the base, with the spread of the seeds in its error."""
    return _contrast([(setting.runs, 1.0), ((base,), -1.0)], key)


def between(one: Setting, other: Setting, key: ScoreKey) -> ScoreTest | None:
    """Setting `other` against setting `one`."""
    return _contrast([(other.runs, 1.0), (one.runs, -1.0)], key)


def mean_score(runs: Sequence[ExternalRun], key: ScoreKey) -> float:
    """The mean of the runs' scores."""
    return float(np.mean([run.scores[key].value for run in runs]))


def differing_settings(one: Setting, other: Setting) -> list[str]:
    """The names of the settings in which two settings differ."""
    names = dict.fromkeys([*one.values, *other.values])
    return [name for name in names if str(one.values.get(name)) != str(other.values.get(name))]


def _seed(run: ExternalRun) -> tuple[str | None, tuple[Any, ...]]:
    """A run's seed, and all that must be equal for its runs to be of one setting."""
    rest = {name: str(value) for name, value in run.settings.items() if name not in ("seed", "adapter")}
    seed = run.settings.get("seed")
    if seed is not None:
        return str(seed), tuple(sorted(rest.items()))
    found = SEED_IN_NAME.search(run.name)
    if found is None:
        return None, ()
    # Runs without a column for the seed often have none for their settings either.
    return found[1], (SEED_IN_NAME.sub("", run.name), *sorted(rest.items()))


def _shared(runs: Sequence[ExternalRun]) -> dict[str, Any]:
    return {name: value for name, value in runs[0].settings.items() if name not in ("seed", "adapter")}


def _varied(shared: list[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for values in shared for name in values)
    return [name for name in names if len({str(values.get(name)) for values in shared}) > 1]


def _label(runs: Sequence[ExternalRun], varied: list[str]) -> str:
    values = [(name, runs[0].settings.get(name)) for name in varied]
    parts = [f"{name.replace('_', ' ')} {_value(value)}" for name, value in values if not is_absent(value)]
    named = listed(parts) or SEED_IN_NAME.sub("", runs[0].name).strip("-_/. ") or runs[0].name
    return f"{shortened(named, LONGEST_LABEL)} ({plural(len(runs), 'seed')})"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _contrast(sides: list[tuple[Sequence[ExternalRun], float]], key: ScoreKey) -> ScoreTest | None:
    part = _of_items(sides, key) or _of_errors(sides, key)
    if part is None:
        return None
    scores = {sign: np.array([run.scores[key].value for run in runs]) for runs, sign in sides if len(runs) > 1}
    spreads = seed_spreads(scores)
    # Values near the largest float have no finite variance.
    if not np.isfinite([part.variance, *(spread.variance for spread in spreads.values())]).all():
        return None
    shares = [SeedShare(1 / len(scores[sign]), spread) for sign, spread in spreads.items()]
    found = contrast_test([part], shares, confidence=1 - ALPHA)
    return ScoreTest(found.low, found.high, found.p, SEEDS_T)


def _of_items(sides: list[tuple[Sequence[ExternalRun], float]], key: ScoreKey) -> ItemPart | None:
    """The error over items from the single items, if all runs have the same."""
    tables = [run.items.get(key, {}) for runs, _ in sides for run in runs]
    items = list(tables[0])
    if len(items) < 2 or any(table.keys() != tables[0].keys() for table in tables):
        return None
    arms = []
    for runs, sign in sides:
        values = np.array([[run.items[key][item] for item in items] for run in runs])
        # The size of the spread is only needed where there are several seeds.
        spread = SeedSpread(0.0, len(runs) - 1, pooled=False) if len(runs) > 1 else None
        arms.append(Arm(values, np.ones(len(items)), sign, spread))
    return item_part(arms, None)


def _of_errors(sides: list[tuple[Sequence[ExternalRun], float]], key: ScoreKey) -> ItemPart | None:
    """The error over items from the standard errors of the scores.

    All seeds answer the same items, so a mean over seeds is as uncertain over items as one of them.
    """
    variance, fewest = 0.0, MANY
    for runs, _ in sides:
        errors = [standard_error(run.scores[key], key) for run in runs]
        if None in errors or min(errors) <= 0:
            return None
        variance += float(np.mean(np.square(errors)))
        fewest = min([fewest, *(run.scores[key].items or MANY for run in runs)])
    difference = sum(sign * mean_score(runs, key) for runs, sign in sides)
    return ItemPart(difference, variance, max(1.0, fewest - 1), int(fewest), 0.0)
