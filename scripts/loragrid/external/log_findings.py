"""What the logs of external runs show: causes of faults, and why their losses are not compared."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from loragrid.comparing.diagnosing.causes import with_symptoms
from loragrid.comparing.diagnosing.loss_causes import diverged, overfitted, under_trained
from loragrid.comparing.diagnosing.run_evidence import RunEvidence
from loragrid.external.directions import LOSS_WORDS, known_direction, name_words
from loragrid.external.runs import ExternalResults, ExternalRun, is_number, score_name, shortened
from loragrid.formatting import listed, number, plural, whole
from loragrid.reporting.sentences.causes import CauseText, cause_texts

LONGEST_NAME = 80
MOST_NAMED = 3
# ASSUME: a score got worse if it lost more than a fiftieth of its value, which is about what evaluations differ by.
WORSE_SHARE = 0.02


def run_causes(results: ExternalResults) -> list[dict[str, Any]]:
    """Per run with a fault: its label, and the causes that its losses and held-out scores show."""
    rows = []
    for run in results.runs.values():
        if run.path is None:
            continue
        epochs = run.settings.get("epochs")
        evidence = RunEvidence(None, run.path, epochs if is_number(epochs) else None, {}, {}, None)
        causes = with_symptoms([*diverged(evidence), *under_trained(evidence), *overfitted(evidence)])
        if causes:
            texts = [
                _beside_scores(run, _in_unit(text, run.path_unit)) for text in cause_texts(map(asdict, causes), {})
            ]
            rows.append({"label": shortened(run.name, LONGEST_NAME), "causes": texts})
    return rows


def _in_unit(text: CauseText, unit: str) -> CauseText:
    """The evidence by what the log counts, such as steps."""
    return replace(text, evidence=text.evidence.replace("of the tokens", f"of the {unit}"))


def _beside_scores(run: ExternalRun, text: CauseText) -> CauseText:
    """A held-out loss that turned up is no loss of skill where no score on the same rows got worse."""
    moved = score_changes(run) if text.cause == "overfitted" else {}
    if not moved:
        return text
    parts = [f"{score_name((name, ''))} from {number(then)} to {number(now)}" for name, (then, now) in moved.items()]
    evidence = f"{text.evidence}; {listed(parts[:MOST_NAMED])}"
    if any(_worse(name, *ends) for name, ends in moved.items()):
        return replace(text, evidence=evidence)
    kept = listed([score_name((name, "")) for name in list(moved)[:MOST_NAMED]])
    evidence = f"{evidence}: held-out loss turned up, but {kept} did not get worse: confidence, not skill"
    return replace(text, name="Overconfident", evidence=evidence)


def score_changes(run: ExternalRun) -> dict[str, tuple[float, float]]:
    """Held-out scores with a known direction: their values where held-out loss was lowest, and at the end."""
    if run.path is None or not len(run.path.heldout) or np.isnan(run.path.heldout).all():
        return {}
    lowest = run.path.heldout_tokens[int(np.nanargmin(run.path.heldout))]
    found = {}
    for name, curve in run.curves.items():
        if known_direction(name) is not None and not name_words(name) & LOSS_WORDS and len(curve.places) > 1:
            then = float(curve.values[int(np.abs(curve.places - lowest).argmin())])
            found[name] = (then, float(curve.values[-1]))
    return found


def _worse(name: str, then: float, now: float) -> bool:
    change = now - then if known_direction(name) else then - now
    return change < -WORSE_SHARE * abs(then)


def losses_not_compared(runs: Sequence[ExternalRun]) -> list[str]:
    """Why the losses of several logs are drawn side by side and not compared, with names and values."""
    logged = [run for run in runs if run.path is not None]
    if len(logged) < 2:
        return []
    only_train = [run for run in logged if not len(run.path.heldout)]
    held_out = [run for run in logged if len(run.path.heldout)]
    sentences = []
    if only_train and held_out:
        sentences.append(
            f"{_names(only_train)} logged training loss only and {_names(held_out)} held-out loss: a training loss "
            "is not compared with a held-out one."
        )
    lengths = {run.name: float(max([0.0, *run.path.train_tokens, *run.path.heldout_tokens])) for run in logged}
    shortest, longest = (pick(lengths, key=lengths.__getitem__) for pick in (min, max))
    units = {run.path_unit for run in logged}
    if len(units) == 1 and lengths[shortest] != lengths[longest]:
        unit = units.pop()
        sentences.append(
            f"The last losses are not compared: the runs differ in length, from {whole(lengths[shortest])} {unit} "
            f"({shortened(shortest, LONGEST_NAME)}) to {whole(lengths[longest])} ({shortened(longest, LONGEST_NAME)})."
        )
    stated = {str(run.settings["data"]) for run in logged if run.settings.get("data")}
    if len(stated) > 1:
        shown = listed([shortened(value, 40) for value in sorted(stated)[:MOST_NAMED]])
        sentences.append(f"Losses on different data sets are not compared: {shown}.")
    return sentences


def _names(runs: Sequence[ExternalRun]) -> str:
    if len(runs) > MOST_NAMED:
        return plural(len(runs), "run")
    return listed([shortened(run.name, LONGEST_NAME) for run in runs])
