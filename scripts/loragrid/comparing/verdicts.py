"""From differences to verdicts: seed spread, correction for the number of comparisons, smallest detectable difference."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing import paired_statistics
from loragrid.comparing.comparisons import Terms, settings_of
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.power import smallest_detectable
from loragrid.records.outcomes import Outcome


def seed_noise(outcomes: list[Outcome], tables: dict[str, ItemTable]) -> dict[str, dict[str, Any]]:
    """Task → variance of a run's score between seeds, pooled over the settings that were trained under several."""
    settings, noise = settings_of(outcomes), {}
    for table in tables.values():
        scores = []
        for members in settings:
            means = [_mean(table, run.subject) for run in members if run.subject in table.values]
            if len(means) > 1:
                scores.append(np.array(means))
        variance, df = paired_statistics.pooled_seed_variance(scores)
        if df:
            noise[table.task] = {
                "sd": float(np.sqrt(variance)),
                "variance": variance,
                "df": df,
                "settings": len(scores),
            }
    return noise


def _mean(table: ItemTable, subject: str) -> float:
    values = table.values[subject]
    mask = ~np.isnan(values)
    weights = table.weights[subject][mask] if table.weights else None
    return float(np.average(values[mask], weights=weights))


def widen_by_seeds(frame: pd.DataFrame, noise: dict[str, dict[str, Any]], terms: Terms) -> pd.DataFrame:
    """The rows with seed spread in interval and p where it was measured on their task; `seed_noise` says whether it was."""
    # ASSUME: training under another seed moves the score of every setting alike, so that one setting's spread serves all.
    if "difference" not in frame:
        return frame
    frame = frame.assign(seed_noise="not measured")
    for task, known in noise.items():
        rows = frame.index[(frame["task"] == task) & frame["difference"].notna()]
        columns = ("difference", "stderr", "df")
        wider = paired_statistics.with_seed_spread(
            *(frame.loc[rows, name].to_numpy(float) for name in columns),
            seed_variance=known["variance"],
            seed_df=known["df"],
            share=frame.loc[rows, "seed_share"].to_numpy(float),
            confidence=terms.confidence,
        )
        for name, values in {**wider, "test_stderr": wider["stderr"], "least_p": 0.0, "binary": False}.items():
            frame.loc[rows, name] = values
        frame.loc[rows, "method"], frame.loc[rows, "seed_noise"] = paired_statistics.SEEDS_T, "measured"
    return frame


def judge(frames: Iterable[pd.DataFrame], tables: dict[str, ItemTable], terms: Terms) -> int:
    """Add corrected p, smallest detectable difference and verdict to the frames, over all of them as one family.

    Returns the number of comparisons in the family. Frames are changed in place.
    """
    frames = [frame for frame in frames if not frame.empty]
    for frame in frames:
        for column in ("difference", "p", "low", "high", "test_stderr", "df", "least_p", "items", "binary"):
            if column not in frame:
                frame[column] = np.nan
    if not frames:
        return 0
    p = np.concatenate([frame["p"].to_numpy(float) for frame in frames])
    family = int((~np.isnan(p)).sum())
    corrected = iter(
        np.split(paired_statistics.corrected(p, method=terms.correction), np.cumsum([len(f) for f in frames])[:-1])
    )
    for frame in frames:
        frame["p_corrected"] = next(corrected)
        sign = frame["task"].map(lambda task: 1.0 if tables[task].higher_is_better else -1.0)
        frame["improvement"] = frame["difference"] * sign
        frame["detectable"] = [
            np.nan if np.isnan(row.p) else _detectable(row, terms.alpha / family, terms.power)
            for row in frame.itertuples()
        ]
        frame["verdict"] = [
            "" if np.isnan(row.p) else paired_statistics.verdict(row.improvement, row.p_corrected, terms.alpha)
            for row in frame.itertuples()
        ]
    return family


def _detectable(row: Any, alpha: float, power: float) -> float:
    """NaN where the row's test can not give a p value as small as `alpha`, whatever the difference."""
    if row.least_p >= alpha:
        return float("nan")
    items = int(row.items) if row.binary else None
    return smallest_detectable(row.test_stderr, df=row.df, alpha=alpha, power=power, items=items)
