"""From differences to verdicts: seed spread, correction for the number of comparisons, smallest detectable difference."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from study import stats
from study.comparisons import Terms, setting_key
from study.item_tables import ItemTable
from study.outcomes import Outcome


def seed_noise(outcomes: list[Outcome], tables: dict[str, ItemTable]) -> dict[str, dict[str, Any]]:
    """Task → variance of a run's score between seeds, pooled over the settings that were trained under several."""
    groups: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.kind == "run" and outcome.status == "scored":
            groups.setdefault(setting_key(outcome.cell), []).append(outcome.subject)
    noise = {}
    for table in tables.values():
        scores = []
        for members in groups.values():
            means = [_mean(table, subject) for subject in members if subject in table.values]
            if len(means) > 1:
                scores.append(np.array(means))
        variance, df = stats.pooled_seed_variance(scores)
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


def widen_by_seeds(axes: pd.DataFrame, noise: dict[str, dict[str, Any]], terms: Terms) -> pd.DataFrame:
    """The axis rows with seed spread in interval and p where it was measured; `seed_noise` says whether it was."""
    if axes.empty:
        return axes
    axes = axes.assign(seed_noise="not measured")
    for index, row in axes.iterrows():
        if row["task"] in noise and not np.isnan(row.get("difference", np.nan)):
            known = noise[row["task"]]
            wider = stats.with_seed_spread(
                np.array([row["difference"]]),
                np.array([row["stderr"]]),
                units=int(row["units"]),
                seed_variance=known["variance"],
                seed_df=known["df"],
                share=row["seed_share"],
                confidence=terms.confidence,
            )
            for key in ("p", "low", "high", "stderr"):
                axes.loc[index, key] = float(wider[key][0])
            axes.loc[index, "spread"] = float(wider["stderr"][0] * np.sqrt(row["units"]))
            axes.loc[index, "method"], axes.loc[index, "seed_noise"] = stats.SEEDS_T, "measured"
    return axes


def judge(frames: Iterable[pd.DataFrame], tables: dict[str, ItemTable], terms: Terms) -> int:
    """Add corrected p, smallest detectable difference and verdict to the frames, over all of them as one family.

    Returns the number of comparisons in the family. Frames are changed in place.
    """
    frames = [frame for frame in frames if not frame.empty]
    for frame in frames:
        for column in ("difference", "p", "spread", "units", "binary"):
            if column not in frame:
                frame[column] = np.nan
    if not frames:
        return 0
    p = np.concatenate([frame["p"].to_numpy(float) for frame in frames])
    family = int((~np.isnan(p)).sum())
    corrected = iter(np.split(stats.corrected(p, method=terms.correction), np.cumsum([len(f) for f in frames])[:-1]))
    for frame in frames:
        frame["p_corrected"] = next(corrected)
        sign = frame["task"].map(lambda task: 1.0 if tables[task].higher_is_better else -1.0)
        frame["improvement"] = frame["difference"] * sign
        frame["detectable"] = [
            np.nan if np.isnan(row.p) else _detectable(row, terms.alpha / family, terms.power)
            for row in frame.itertuples()
        ]
        frame["verdict"] = [
            "" if np.isnan(row.p) else stats.verdict(row.improvement, row.p_corrected, terms.alpha)
            for row in frame.itertuples()
        ]
    return family


def _detectable(row: Any, alpha: float, power: float) -> float:
    spread = np.array([row.spread])
    return float(
        stats.smallest_detectable(spread, units=int(row.units), alpha=alpha, power=power, binary=bool(row.binary))[0]
    )
