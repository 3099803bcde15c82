"""Faults that concern more than one run: a base that can do nothing, rows in training and held-out, unequal terms."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from loragrid.comparing.causes import Cause, stops
from loragrid.comparing.clustered_means import mean_interval
from loragrid.comparing.comparisons import Terms
from loragrid.comparing.item_tables import ItemTable
from loragrid.comparing.run_evidence import answer_measures
from loragrid.formatting import AXIS_NAMES, listed, number, plain_name, plural, score, visible
from loragrid.models.shape import find_config
from loragrid.records.outcomes import Outcome
from loragrid.study.sections import ModelEntry
from loragrid.study.study_file import Study
from loragrid.study.tasks import HELDOUT_LOSS

# ASSUME: a base whose held-out loss is within a tenth of that of guessing every token alike has learned no language.
NEAR_UNIFORM = 0.9


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
    loss, words = untrained_loss(base, outcomes), vocabulary(study.models[base.model])
    if loss is not None and words and loss >= NEAR_UNIFORM * math.log(words):
        even = number(math.log(words))
        text = f"held-out loss {number(loss)} untrained; guessing evenly among {words:,} tokens gives {even}"
        yield Cause("broken_base", text, f"{NEAR_UNIFORM:.0%} of an even guess")


def untrained_loss(base: Outcome, outcomes: list[Outcome]) -> float | None:
    """Held-out loss of a base: its own score, else what its runs measured before their first update."""
    scored = base.score.tasks.get(HELDOUT_LOSS) if base.score else None
    if scored is not None and scored.status == "scored":
        return scored.metrics["loss"]["value"]
    of_runs = (o.record.first_heldout_loss for o in outcomes if o.base == base.subject and o.record)
    return next((loss for loss in of_runs if loss is not None), None)


def vocabulary(entry: ModelEntry) -> int | None:
    """Size of a model's vocabulary, as far as its configuration is here or the study file holds its shape."""
    found = find_config(entry)
    config = {} if found is None else found[0]
    return config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")


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
        mask = ~np.isnan(values)
        clusters = table.clusters[mask] if table.clusters is not None else None
        found = mean_interval(values[mask], weights=None, clusters=clusters, confidence=terms.confidence)
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
    """Data id → cause, where held-out rows stand in the training rows too, token for token. Near-equal rows are not looked
    for again: the split keeps them apart (loragrid/data/heldout_split.py), and this would take minutes on large data."""
    found = {}
    for folder in (results / "data" / data for data in sorted(data_sets)):
        train, heldout = folder / "train.parquet", folder / "heldout.parquet"
        if not train.is_file() or not heldout.is_file():
            continue
        kept = _row_digests(heldout)
        shared = len(kept & _row_digests(train))
        if shared:
            text = f"{plural(shared, 'held-out row')} of {len(kept)} stand in the training rows token for token"
            found[folder.name] = Cause(
                "leak", text, "any equal row; near-equal ones are kept apart when the data are split"
            )
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


def not_comparable(outcomes: list[Outcome], heldout: dict[str, str], axes: pd.DataFrame) -> list[str]:
    """Sentences that name what the report does not compare."""
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
    unequal = axes[~axes["equal_tokens"].astype(bool)] if "equal_tokens" in axes else axes.iloc[:0]
    for (axis, value), rows in unequal.groupby(["axis", "value"], sort=False) if len(unequal) else ():
        found.append(
            f"{AXIS_NAMES[axis].capitalize()} {visible(value)} with the base case: its runs saw "
            f"{number(rows['token_ratio'].iloc[0], 2)} times the base case’s tokens. "
            "The table of runs has the held-out loss of all at the same number of tokens."
        )
    return found


def axis_names(study: Study) -> dict[str, str]:
    """Axis → what the report calls it. Alpha moves with rank or the factor alpha/rank does: rank is never changed alone."""
    beside = "with alpha" if study.training.alpha == "rank" else "at fixed alpha"
    return AXIS_NAMES | {"rank": f"rank ({beside})"}


def caveats(study: Study, outcomes: list[Outcome]) -> list[str]:
    """Sentences that name what is compared although more than one thing differs."""
    runs = [o for o in outcomes if o.record]
    found = []
    if len({o.cell.rank for o in runs}) > 1:
        found.append(
            "Rank: alpha moves with it here (the factor alpha/rank stays 1), so its axis is rank and alpha together."
            if study.training.alpha == "rank"
            else "Rank: alpha is fixed here, so its axis is rank and a factor alpha/rank that falls as rank grows."
        )
    for what, values in (
        ("library versions", {json.dumps(o.record.versions, sort_keys=True) for o in runs}),
        ("machines", {str(o.record.device.get("name")) for o in runs}),
        ("backends", {o.record.backend for o in runs}),
        ("precisions of weights or training", {note for o in runs for note in o.record.notes[:1]}),
        ("code versions", {o.record.code for o in runs}),
    ):
        if len(values) > 1:
            found.append(f"Runs from different {what}: part of a difference between them may come from that.")
    return found
