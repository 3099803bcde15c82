"""Faults that concern more than one run: a base that can do nothing, rows in training and held-out, precision, terms."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study import stats
from study.comparisons import Terms
from study.diagnosis import Cause, stops
from study.item_tables import ItemTable
from study.outcomes import Outcome
from study.run_evidence import answer_measures
from study.study_file import Study
from study.wording import change, listed, number, plain_name, plural, score, visible

# ASSUME: a base whose held-out loss is within a tenth of that of guessing every token alike has learned no language.
NEAR_UNIFORM = 0.9
# ASSUME: cells whose training tokens differ by less than 2% were trained on equal terms.
TOKEN_TOLERANCE = 0.02


def base_faults(
    outcomes: list[Outcome], tables: dict[str, ItemTable], study: Study, results: Path, terms: Terms
) -> dict[str, list[Cause]]:
    """Base → causes that make every comparison with it doubtful."""
    found: dict[str, list[Cause]] = {}
    for base in [o for o in outcomes if o.kind == "base"]:
        causes = list(_near_uniform(base, outcomes, study))
        if base.status == "scored":
            causes += _near_chance(base, tables, results, terms)
            causes += stops(answer_measures(base), {})
        if causes:
            found[base.subject] = causes
    return found


def _near_uniform(base: Outcome, outcomes: list[Outcome], study: Study) -> Iterator[Cause]:
    losses = [o.record.first_heldout_loss for o in outcomes if o.base == base.subject and o.record]
    words = vocabulary(study.settings["models"][base.model])
    if words and losses and losses[0] is not None and losses[0] >= NEAR_UNIFORM * math.log(words):
        even = number(math.log(words))
        text = f"held-out loss {number(losses[0])} untrained; guessing evenly among {words:,} tokens gives {even}"
        yield Cause("broken_base", text, f"{NEAR_UNIFORM:.0%} of an even guess")


def vocabulary(entry: dict[str, Any]) -> int | None:
    """Size of a local model's vocabulary; None for a hub model, whose configuration is not here."""
    config = Path(entry.get("path", "")) / "config.json"
    if "path" not in entry or not config.is_file():
        return None
    settings = json.loads(config.read_text(encoding="utf-8"))
    return settings.get("vocab_size") or settings.get("text_config", {}).get("vocab_size")


def _near_chance(base: Outcome, tables: dict[str, ItemTable], results: Path, terms: Terms) -> Iterator[Cause]:
    """Multiple-choice retention tasks on which the base can not be told from a guesser: nothing can be forgotten there.
    A base that guesses on half of them or more is broken."""
    asked, guessed = 0, []
    for table in tables.values():
        chance = chance_level(results / "score" / base.subject / "lm_eval" / f"{table.task}.json", table.task)
        values = table.values.get(base.subject)
        if table.group != "retention" or chance is None or values is None or not table.binary:
            continue
        asked += 1
        found = stats.mean_interval(values[~np.isnan(values)], weights=None, binary=True, confidence=terms.confidence)
        if found["low"] <= chance:
            guessed.append(
                f"{plain_name(table.task)} {score(found['value'], 'share')}, by guessing {score(chance, 'share')}"
            )
    if guessed:
        cause = "broken_base" if 2 * len(guessed) >= asked else "at_chance"
        text = f"{listed(guessed)}: nothing can be forgotten there"
        yield Cause(cause, text, "the interval of the untrained score reaches down to chance")


def chance_level(path: Path, task: str) -> float | None:
    """What a guesser scores on a multiple-choice task with a written-out list of choices; None if that is not known."""
    if not path.is_file():
        return None
    configs = json.loads(path.read_text(encoding="utf-8")).get("configs", {})
    config = configs.get(task) or {}
    choices = config.get("doc_to_choice")
    if config.get("output_type") != "multiple_choice":
        return None
    if isinstance(choices, str) and (listed_ := re.fullmatch(r"\s*\{\{\s*\[([^\[\]()|]+)\]\s*\}\}\s*", choices)):
        choices = listed_[1].split(",")
    return 1 / len(choices) if isinstance(choices, list) and len(choices) > 1 else None


def leaks(results: Path, data_sets: Iterable[str]) -> dict[str, Cause]:
    """Data id → cause, where held-out rows stand in the training rows too, token for token."""
    found = {}
    for folder in (results / "data" / data for data in sorted(data_sets)):
        train, heldout = folder / "train.parquet", folder / "heldout.parquet"
        if not train.is_file() or not heldout.is_file():
            continue
        kept = _row_digests(heldout)
        shared = len(kept & _row_digests(train))
        if shared:
            text = f"{plural(shared, 'held-out row')} of {len(kept)} stand in the training rows token for token"
            found[folder.name] = Cause("leak", text, "any")
    return found


def _row_digests(path: Path) -> set[bytes]:
    """Digests of the rows' tokens, read in batches so that large data sets fit."""
    import hashlib

    import pyarrow.parquet

    digests = set()
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=4096, columns=["input_ids"]):
            column = batch.column(0)
            values, offsets = column.values.to_numpy().astype(np.int32), column.offsets.to_numpy()
            for start, end in pairwise(offsets):
                digests.add(hashlib.blake2b(values[start:end].tobytes(), digest_size=16).digest())
    return digests


def precision_controls(
    study: Study, tables: dict[str, ItemTable], outcomes: list[Outcome], terms: Terms
) -> list[dict[str, Any]]:
    """Bases that are one model in two precisions, compared task by task: what 4 bits cost before any training."""
    bases = [o for o in outcomes if o.kind == "base" and o.status == "scored"]
    models = study.settings["models"]
    rows = []
    for low in bases:
        for high in bases:
            a, b = models[high.model], models[low.model]
            same = {k: v for k, v in a.items() if k != "precision"} == {k: v for k, v in b.items() if k != "precision"}
            if not same or a["precision"] == b["precision"] or int(a["precision"][:-3]) < int(b["precision"][:-3]):
                continue
            rows += [_control(table, high, low, terms) for table in tables.values()]
    return [row for row in rows if row]


def _control(table: ItemTable, high: Outcome, low: Outcome, terms: Terms) -> dict[str, Any] | None:
    if high.subject not in table.values or low.subject not in table.values:
        return None
    a, b = table.values[high.subject], table.values[low.subject]
    mask = ~np.isnan(a) & ~np.isnan(b)
    if mask.sum() < 5:
        return None
    found = stats.compare_paired(
        a[mask][None], b[mask][None], confidence=terms.confidence, draws=terms.bootstrap_draws, seed=terms.seed
    )
    sign = 1 if table.higher_is_better else -1
    return {
        "task": table.task,
        "high": high.model,
        "low": low.model,
        "difference": float(found.difference[0]),
        "low_bound": float(found.low[0]),
        "high_bound": float(found.high[0]),
        "p": float(found.p[0]),
        "worse": bool(found.p[0] < terms.alpha and sign * found.difference[0] < 0),
        "text": f"{plain_name(table.task)} {change(float(found.difference[0]), table.unit, words=True)} in {low.score.precision}",
    }


def not_comparable(study: Study, outcomes: list[Outcome], heldout: dict[str, str], axes: pd.DataFrame) -> list[str]:
    """Sentences that name what the report does not compare, or compares only with a grain of salt."""
    runs = [o for o in outcomes if o.record]
    found = []
    if len({o.record.steps for o in runs}) > 1:
        found.append(
            "Mean or final training loss of runs with different numbers of updates: the mean covers another stretch of each run."
        )
    if len({heldout.get(o.cell.data, o.cell.data) for o in runs}) > 1:
        models = listed(sorted({visible(o.model) for o in runs}))
        found.append(
            f"Losses across {models}: their tokenizers or templates differ, so a token is not the same thing in each."
        )
    ranks = {o.cell.rank for o in runs}
    if len(ranks) > 1 and study.settings["training"]["alpha"] == "rank":
        found.append(
            "Rank alone: alpha moves with rank here (its factor alpha/rank stays 1), so the rank axis is rank and alpha together."
        )
    elif len(ranks) > 1:
        found.append("Rank alone: alpha is fixed here, so the factor alpha/rank falls as rank grows.")
    found += list(_unequal_terms(runs, axes))
    return found


def _unequal_terms(runs: list[Outcome], axes: pd.DataFrame) -> Iterator[str]:
    if not axes.empty and "token_ratio" in axes:
        for (axis, value), rows in axes.groupby(["axis", "value"], sort=False):
            ratio = rows["token_ratio"].iloc[0]
            if abs(ratio - 1) > TOKEN_TOLERANCE:
                name = axis.replace("_", " ").capitalize()
                yield (
                    f"{name} {visible(value)} at equal terms: its runs saw {number(ratio, 2)} times the base case’s tokens. "
                    "The table of runs has the held-out loss of all at the same number of tokens."
                )
    for what, values in (
        ("library versions", {json.dumps(o.record.versions, sort_keys=True) for o in runs}),
        ("machines", {str(o.record.device.get("name")) for o in runs}),
        ("backends", {o.record.backend for o in runs}),
        ("precisions of weights or training", {note for o in runs for note in o.record.notes[:1]}),
        ("code versions", {o.record.code for o in runs}),
    ):
        if len(values) > 1:
            yield f"Runs from different {what}: part of a difference between them may come from that."
