"""From differences to verdicts: seed variance, correction, smallest detectable difference."""

from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.comparisons import Terms, settings_of
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.statistics import paired_statistics
from loragrid.comparing.statistics.paired_statistics import SeedVariance
from loragrid.comparing.statistics.power import smallest_detectable
from loragrid.records.outcomes import Outcome

# A frame whose rows all lack a test has none of these.
JUDGED_COLUMNS = ("difference", "p", "low", "high", "test_stderr", "df", "least_p", "items", "binary")


def seed_noise(outcomes: list[Outcome], tables: dict[str, ItemTable]) -> dict[str, dict[str, Any]]:
    """Task → variance of a run's score between seeds, pooled over settings of several seeds."""
    settings, noise = settings_of(outcomes), {}
    for table in tables.values():
        scores = []
        for members in settings:
            means = [_mean(table, run.subject) for run in members if run.subject in table.values]
            if len(means) > 1:
                scores.append(np.array(means))
        pooled = paired_statistics.pooled_seed_variance(scores)
        if pooled.df:
            spread = {"sd": float(np.sqrt(pooled.variance)), "variance": pooled.variance, "df": pooled.df}
            noise[table.task] = spread | {"settings": len(scores)}
    return noise


def _mean(table: ItemTable, subject: str) -> float:
    values = table.values[subject]
    mask = ~np.isnan(values)
    weights = table.weights_of(subject, mask)
    return float(np.average(values[mask], weights=weights))


def widen_by_seeds(frame: pd.DataFrame, noise: dict[str, dict[str, Any]], terms: Terms) -> pd.DataFrame:
    """The rows with the seeds' variance in interval and p, where it was measured.

    The column `seed_noise` says where.
    """
    # ASSUME: scores vary from seed to seed by as much for one setting as for another, so all settings
    # share one variance between seeds.
    if "difference" not in frame:
        return frame
    frame = frame.assign(seed_noise="not measured")
    for task, known in noise.items():
        rows = frame.index[(frame["task"] == task) & frame["difference"].notna()]
        columns = ("difference", "stderr", "df")
        wider = paired_statistics.with_seed_spread(
            *(frame.loc[rows, name].to_numpy(float) for name in columns),
            SeedVariance(known["variance"], known["df"]),
            share=frame.loc[rows, "seed_share"].to_numpy(float),
            confidence=terms.confidence,
        )
        # A t test replaces the exact test, so the limits of the exact one no longer hold here.
        wider |= {"test_stderr": wider["stderr"], "least_p": 0.0, "binary": False}
        for name, values in wider.items():
            frame.loc[rows, name] = values
        frame.loc[rows, "method"], frame.loc[rows, "seed_noise"] = paired_statistics.SEEDS_T, "measured"
    return frame


def judge(frames: list[pd.DataFrame], tables: dict[str, ItemTable], terms: Terms) -> int:
    """Add corrected p, smallest detectable difference and verdict to the frames, as one family.

    Changes the frames in place and returns the number of comparisons in the family.
    """
    frames = [frame for frame in frames if not frame.empty]
    for frame in frames:
        for column in JUDGED_COLUMNS:
            if column not in frame:
                frame[column] = np.nan
    if not frames:
        return 0
    p = np.concatenate([frame["p"].to_numpy(float) for frame in frames])
    family = int((~np.isnan(p)).sum())
    # One correction over all frames: one per table would allow a false claim per table.
    ends = np.cumsum([len(frame) for frame in frames])
    corrected = np.split(paired_statistics.corrected(p, method=terms.correction), ends[:-1])
    for frame, p_corrected in zip(frames, corrected):
        frame["p_corrected"] = p_corrected
        sign = frame["task"].map(lambda task: 1.0 if tables[task].higher_is_better else -1.0)
        frame["improvement"] = frame["difference"] * sign
        rows = list(frame.itertuples())
        frame["detectable"] = [_detectable(row, terms, family) for row in rows]
        frame["verdict"] = [_verdict(row, terms) for row in rows]
    return family


def _verdict(row: Any, terms: Terms) -> str:
    """Empty for a row without a test."""
    if np.isnan(row.p):
        return ""
    return paired_statistics.verdict(row.improvement, row.p_corrected, terms.alpha)


def _detectable(row: Any, terms: Terms, family: int) -> float:
    """The row's smallest detectable difference; NaN where its test cannot reach the level."""
    if np.isnan(row.p):
        return np.nan
    # The worst case: the level of Holm's first step (Bonferroni), the strictest of all.
    alpha = terms.alpha / family
    if row.least_p >= alpha:
        return np.nan
    items = int(row.items) if row.binary else None
    return smallest_detectable(row.test_stderr, df=row.df, alpha=alpha, power=terms.power, items=items)
