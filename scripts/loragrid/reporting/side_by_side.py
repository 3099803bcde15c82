"""The page's section of answers by base and tuned models, side by side with the reference."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from loragrid.formatting import between, change, change_beside, score, visible, whole
from loragrid.records.seal import check_sealed
from loragrid.reporting.answers.similarity_strip import mark, strip
from loragrid.reporting.answers.word_marks import MOST_CHARACTERS, marked_pieces, pieces
from loragrid.reporting.page import Material
from loragrid.statistics.paired_statistics import compare_paired
from loragrid.statistics.power import fewest_units
from loragrid.statistics.sign_flips import Draws

WORDINGS = ("prompt", "original")
MOST_RUNS = 3  # beside the base: nobody reads more columns than that
MUCH_REPEATED = 0.2  # share of repeated 4-grams from which an answer's facts name it
DRAWS = Draws(2000, seed=0)  # random sign flips
# Measure → heading and unit of its mean over the prompts.
MEASURES = {
    "similarity": ("Similarity to the reference", "share"),
    "reference_log_likelihood": ("Log-likelihood of the reference, nats per token", "plain"),
    "new_tokens": ("Length, tokens", "count"),
    "stopped": ("Ended by itself", "share"),
    "repetition": ("Repetition", "share"),
}
Answers = dict[str, dict[str, Any]]  # prompt id → row of answers.jsonl


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Rows of an answers.jsonl, an empty list if there is none.

    Lines that are no whole answer are skipped.
    """
    check_sealed(path)
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and {"id", "reference", "in_training", *WORDINGS} <= set(row):
            rows.append(row)
    return rows


def shown_runs(material: Material) -> list[str]:
    """The base case, and the runs of its model with the largest and the smallest gain."""
    scored = {}
    for outcome in material.outcomes:
        if outcome.kind == "run" and outcome.status == "scored":
            scored[outcome.subject] = outcome.base
    by_gain = sorted(material.compared.summary["trade_offs"], key=lambda row: -row["gain"])
    ranked = [row["run"] for row in by_gain if row["run"] in scored]
    base_cases = [run for run in material.compared.base_case_runs if run in scored]
    # Without a scored base case the run with the largest gain comes first, or any.
    candidates = [*base_cases, *ranked, *scored]
    if not candidates:
        return []
    first = candidates[0]
    # Answers of another model say nothing about a setting.
    others = [run for run in ranked if scored[run] == scored[first] and run != first]
    return list(dict.fromkeys([first, *others[:1], *others[-1:]]))[:MOST_RUNS]


def side_by_side(material: Material) -> dict[str, Any] | None:
    """The section's content, None if there are no answers.

    `prompts` with all answers, `models` with their marks, `means` over them by subject, `headings` of the measures, and
    `trained`: how many of the prompts are rows of the training data.
    """
    runs = shown_runs(material)
    base = next((outcome.base for outcome in material.outcomes if outcome.subject in runs), None)
    answers = {}
    for subject in [base, *runs] if base else runs:
        rows = read_answers(material.results / "score" / subject / "answers.jsonl")
        if rows:
            answers[subject] = {row["id"]: row for row in rows}
    if not answers:
        return None
    first = next(iter(answers.values()))
    labels = material.compared.labels
    return {
        "prompts": [_prompt(id_, row, answers, labels) for id_, row in first.items()],
        "means": _mean_rows(material, answers, base),
        "models": [{"label": labels[subject], "mark": mark(number)} for number, subject in enumerate(answers)],
        "headings": [heading for heading, _ in MEASURES.values()],
        "trained": sum(row["in_training"] for row in first.values()),
    }


def _mean_rows(material: Material, answers: dict[str, Answers], base: str | None) -> list[dict[str, Any]]:
    """Per subject its means over the prompts, and how much of the wording it has memorised."""
    epochs = {}
    for outcome in material.outcomes:
        if outcome.record and outcome.record.train_rows:
            epochs[outcome.subject] = outcome.record.samples / outcome.record.train_rows
    tuned = sum(subject != base for subject in answers)
    # Bonferroni over the tuned models: the intervals of the table's last column hold together.
    alpha = material.compared.summary["terms"]["alpha"] / max(1, tuned)
    base_gaps = _gaps(answers.get(base, {}))
    rows = []
    for subject, found in answers.items():
        if subject == base:
            memory = _own_gap(base_gaps)
        else:
            memory = _memory(_gaps(found), base_gaps, alpha, epochs=epochs.get(subject))
        label = material.compared.labels[subject]
        rows.append({"label": label, **_means(list(found.values())), "memory": memory})
    return rows


def _prompt(id_: str, row: dict[str, Any], answers: dict[str, Answers], labels: dict[str, str]) -> dict[str, Any]:
    shown = {subject: rows[id_] for subject, rows in answers.items() if id_ in rows}
    first = next(iter(shown.values()))
    models = []
    for number, (subject, found) in enumerate(shown.items()):
        # The first is the base, with which the others are compared word by word.
        before = first if number else None
        wordings = [_answer(found[wording], before[wording] if before else None) for wording in WORDINGS]
        models.append({"label": labels[subject], "wordings": wordings})
    similarities = [(labels[subject], found["prompt"].get("similarity")) for subject, found in shown.items()]
    return {
        "id": visible(id_, 80),
        "trained": row["in_training"],
        "question": visible(row["prompt"]["question"], MOST_CHARACTERS),
        "original": visible(row["original"]["question"], MOST_CHARACTERS),
        "reference": pieces(row["reference"]),
        "strip": strip(similarities),
        "answers": models,
    }


def _answer(found: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """An answer's pieces and facts; `before`: the base's answer to the same prompt, None for the base itself."""
    if found.get("error"):
        return {"error": visible(found["error"], 300), "pieces": [], "facts": ""}
    facts = [
        f"similarity {score(found.get('similarity'), 'share')}",
        f"{whole(found.get('new_tokens'))} tokens",
        "ended by itself" if found.get("stopped") else "ran to the limit",
    ]
    repetition = found.get("repetition") or 0
    if repetition > MUCH_REPEATED:
        facts.append(f"{score(repetition, 'share')} repeated")
    shown = pieces(found.get("answer") or "")
    if before and before.get("answer"):
        shown, differing = marked_pieces(found.get("answer") or "", before["answer"])
        facts += [differing] if differing else []
    return {"error": None, "pieces": shown, "facts": ", ".join(facts)}


def _means(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Wording → its mean over the prompts by each measure."""
    return {
        wording: [_mean(rows, wording, measure, unit) for measure, (_, unit) in MEASURES.items()]
        for wording in WORDINGS
    }


def _mean(rows: list[dict[str, Any]], wording: str, measure: str, unit: str) -> str:
    values = [float(row[wording][measure]) for row in rows if row[wording].get(measure) is not None]
    if not values:
        return "–"
    mean = sum(values) / len(values)
    return whole(mean) if unit == "count" else score(mean, unit)


def _gaps(rows: Answers) -> dict[str, float]:
    """Prompt of the training rows → its similarity on the original minus on the rephrased wording."""
    gaps = {}
    for id_, row in rows.items():
        prompt, original = (row[wording].get("similarity") for wording in WORDINGS)
        if row["in_training"] and prompt is not None and original is not None:
            # Rounded, or the last bits of a float would break ties between equal gaps.
            gaps[id_] = round(original - prompt, 9)
    return gaps


def _own_gap(gaps: dict[str, float]) -> str:
    """The base's own mean gap, which training cannot explain."""
    if not gaps:
        return "–"
    mean = sum(gaps.values()) / len(gaps)
    return f"{change(mean, 'share', words=True)} before any training"


def _memory(gaps: dict[str, float], base: dict[str, float], alpha: float, *, epochs: float | None) -> str:
    """How much more the trained wording gained than the other one, compared prompt by prompt.

    `gaps` and `base`: of the run and of its base. `epochs`: after less than one the run has not
    seen all prompts, which can only hide memorising.
    """
    if not gaps:
        return "–"
    shared = [id_ for id_ in gaps if id_ in base]
    if len(shared) < fewest_units(alpha):
        return f"{len(shared)} prompts in common with the base: too few to tell"
    before, after = (np.array([[found[id_] for id_ in shared]]) for found in (base, gaps))
    found = compare_paired(before, after, confidence=1 - alpha, draws=DRAWS)
    low, high = float(found.low[0]), float(found.high[0])
    amount = change_beside(float(found.difference[0]), low, high, "share")
    text = f"{amount} ({between(low, high, 'share')}): "
    if low > 0:
        return f"{text}partly memorised"
    text += "the rephrased wording gained more" if high < 0 else "can’t tell"
    if epochs is not None and epochs < 1:
        text += f"; it saw {score(epochs, 'share')} of the rows"
    return text
