"""Faults and limits of a study: useless bases, leaked rows, unequal terms."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.diagnosing.answer_causes import never_stops
from loragrid.comparing.diagnosing.causes import Cause
from loragrid.comparing.diagnosing.run_evidence import answer_measures
from loragrid.comparing.item_tables import BITS_PER_BYTE
from loragrid.comparing.study_results import StudyResults
from loragrid.comparing.terms import Terms
from loragrid.models.find_shape import vocabulary_size
from loragrid.records.outcomes import Outcome
from loragrid.records.seal import check_sealed
from loragrid.statistics.clustered_means import mean_interval
from loragrid.study.sections import HELDOUT_LOSS
from loragrid.study.study_file import Study

# ASSUME: a base has learned no language if its held-out loss is within a tenth of the loss of a
# model that gives every token the same probability.
NEAR_UNIFORM = 0.9
# What runs differ in → the axes that mean to change it.
VARIED_ON_PURPOSE = {"backends": {"backend"}, "precisions": {"precision", "compute_dtype", "backend"}}


def base_faults(results: StudyResults, terms: Terms) -> dict[str, list[Cause]]:
    """Base → causes that make every comparison with it doubtful."""
    found: dict[str, list[Cause]] = {}
    for base in [o for o in results.outcomes if o.kind == "base"]:
        causes = list(_near_uniform(base, results.outcomes, results.study))
        if base.status == "scored":
            causes += _near_chance(base, results, terms)
            causes += never_stops(answer_measures(base), {})
        if causes:
            found[base.subject] = causes
    return found


def _near_uniform(base: Outcome, outcomes: list[Outcome], study: Study) -> Iterator[Cause]:
    loss, tokens = untrained_loss(base, outcomes), vocabulary_size(study.models[base.model])
    # A model that knows nothing spreads its probability evenly, and its loss is ln(vocabulary).
    if loss is not None and tokens and loss >= NEAR_UNIFORM * math.log(tokens):
        measured = {"loss": loss, "vocabulary": tokens, "uniform_loss": math.log(tokens)}
        yield Cause("broken_base", "near_uniform", measured, {"share_of_uniform": NEAR_UNIFORM})


def untrained_loss(base: Outcome, outcomes: list[Outcome]) -> float | None:
    """Held-out loss of a base: its own score, else its runs' loss before their first update."""
    scored = base.score.tasks.get(HELDOUT_LOSS) if base.score else None
    if scored is not None and scored.status == "scored":
        return scored.metrics["loss"]["value"]
    of_runs = (o.record.first_heldout_loss for o in outcomes if o.base == base.subject and o.record)
    return next((loss for loss in of_runs if loss is not None), None)


def _near_chance(base: Outcome, results: StudyResults, terms: Terms) -> Iterator[Cause]:
    """Retention tasks of multiple choice on which the base may be guessing.

    Nothing can be forgotten there.

    A base that may be guessing on half of them or more is broken.
    """
    asked, guessed = 0, []
    for table in results.tables.values():
        chance = chance_level(results.folder / "score" / base.subject / "lm_eval" / f"{table.task}.json", table.task)
        values = table.values.get(base.subject)
        if table.group != "retention" or chance is None or values is None or not table.binary:
            continue
        asked += 1
        mask = ~np.isnan(values)
        clusters = table.clusters_of(mask)
        found = mean_interval(values[mask], weights=None, clusters=clusters, confidence=terms.confidence)
        if found["low"] <= chance:
            guessed.append({"task": table.task, "score": found["value"], "chance": chance})
    if guessed:
        cause = "broken_base" if 2 * len(guessed) >= asked else "at_chance"
        yield Cause(cause, "near_chance", {"tasks": guessed})


def chance_level(path: Path, task: str) -> float | None:
    """The score of guessing on a multiple-choice task that lists its choices, else None."""
    check_sealed(path)
    if not path.is_file():
        return None
    configs = json.loads(path.read_text(encoding="utf-8")).get("configs", {})
    config = configs.get(task) or {}
    if config.get("output_type") != "multiple_choice":
        return None
    choices = config.get("doc_to_choice")
    # lm-eval also takes a list as a Jinja template, {{[good, bad]}}; of a field its length is unknown.
    if isinstance(choices, str) and (written := re.fullmatch(r"\s*\{\{\s*\[([^\[\]()|]+)\]\s*\}\}\s*", choices)):
        choices = written[1].split(",")
    return 1 / len(choices) if isinstance(choices, list) and len(choices) > 1 else None


def leaks(results: Path, data_sets: Iterable[str]) -> dict[str, Cause]:
    """Data id → cause, where held-out rows equal training rows, token for token.

    Near-equal rows are not searched again: the split keeps them together
    (loragrid/data/heldout_split.py), and a search would take minutes on large data.
    """
    found = {}
    for folder in (results / "data" / data for data in sorted(data_sets)):
        train, heldout = folder / "train.parquet", folder / "heldout.parquet"
        check_sealed(train, heldout)
        if not train.is_file() or not heldout.is_file():
            continue
        kept = _row_digests(heldout)
        shared = len(kept & _row_digests(train))
        if shared:
            found[folder.name] = Cause("leak", "rows_shared", {"shared": shared, "heldout_rows": len(kept)})
    return found


def _row_digests(path: Path) -> set[bytes]:
    """Digests of the rows' tokens, read in batches so that large data fit into memory."""
    import pyarrow.parquet

    digests = set()
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=4096, columns=["input_ids"]):
            column = batch.column(0)
            values, offsets = column.values.to_numpy().astype(np.int32), column.offsets.to_numpy()
            for start, end in pairwise(offsets):
                digests.add(hashlib.blake2b(values[start:end].tobytes(), digest_size=16).digest())
    return digests


def _rows_by_byte(axes: pd.DataFrame) -> dict[str, int]:
    """On how many of how many held-out rows models were compared in bits per byte; empty if none was."""
    if "metric" not in axes:
        return {}
    rows = axes[axes["metric"] == BITS_PER_BYTE]
    if rows.empty:
        return {}
    fewest = rows.loc[rows["items"].idxmin()]
    return {"rows": int(fewest["items"]), "rows_total": int(fewest["items_total"])}


def not_comparable(outcomes: list[Outcome], heldout: dict[str, str], axes: pd.DataFrame) -> list[dict[str, Any]]:
    """What the report must not compare: a code each, with the models or axis value concerned."""
    runs = [o for o in outcomes if o.record]
    found: list[dict[str, Any]] = []
    if len({o.record.steps for o in runs}) > 1:
        found.append({"code": "training_loss_over_unequal_updates"})
    if len({heldout.get(o.cell.data, o.cell.data) for o in runs}) > 1:
        models = sorted({o.model for o in runs})
        found.append({"code": "loss_across_tokenizers", "models": models} | _rows_by_byte(axes))
    if "equal_tokens" not in axes:
        return found
    unequal = axes[~axes["equal_tokens"].astype(bool)]
    for (axis, value), rows in unequal.groupby(["axis", "value"], sort=False):
        ratio = float(rows["token_ratio"].iloc[0])
        found.append({"code": "unequal_training_tokens", "axis": axis, "value": value, "token_ratio": ratio})
    return found


def caveats(study: Study, outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """What is compared although more than one thing differs: a code each, with its count."""
    runs = [o for o in outcomes if o.record]
    found: list[dict[str, Any]] = []
    code = _alpha_over_ranks([o for o in runs if set(o.cell.arm) <= {"rank"}])
    if code is not None:
        found.append({"code": code})
    # A backend's first note names the precision that it chose; later notes are about other things.
    kinds = {
        "library_versions": {json.dumps(o.record.versions, sort_keys=True) for o in runs},
        "machines": {str(o.record.device.get("name")) for o in runs},
        "backends": {o.record.backend for o in runs},
        "precisions": {note for o in runs for note in o.record.notes[:1]},
        "code_versions": {o.record.code for o in runs},
    }
    # What the study itself varies is no caveat.
    varied = {axis for o in runs for axis in o.cell.arm}
    for kind, values in kinds.items():
        if len(values) > 1 and not varied & VARIED_ON_PURPOSE.get(kind, set()):
            found.append({"code": "runs_differ", "field": kind, "distinct": len(values)})
    return found


def _alpha_over_ranks(runs: list[Outcome]) -> str | None:
    """How alpha behaves along the axis of ranks, as a code; None without that axis."""
    pairs = {(o.cell.settings.rank, o.cell.settings.alpha) for o in runs}
    if len({rank for rank, _ in pairs}) < 2 or any(alpha is None for _, alpha in pairs):
        return None
    if len({alpha for _, alpha in pairs}) == 1:
        return "alpha_fixed_over_ranks"
    if len({alpha / rank for rank, alpha in pairs}) == 1:
        return "alpha_moves_with_rank"
    return "alpha_and_factor_over_ranks"
