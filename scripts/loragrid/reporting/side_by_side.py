"""Answers to the study's prompts by base and tuned models, beside each other and the reference."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from loragrid.comparing.paired_statistics import compare_paired
from loragrid.comparing.power import fewest_units
from loragrid.formatting import between, change, decimals, score, visible
from loragrid.records.outcomes import Outcome

WORDINGS = ("prompt", "original")
MOST_CHARACTERS = 4000
MOST_RUNS = 3  # beside the base: more columns than that nobody reads
# measure → heading, unit; means over the prompts
MEASURES = {
    "similarity": ("Similarity to the reference", "share"),
    "reference_log_likelihood": ("Likelihood of the reference, nats per token", "plain"),
    "new_tokens": ("Length, tokens", "plain"),
    "stopped": ("Ended by itself", "share"),
    "repetition": ("Repetition", "share"),
}


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Rows of an answers.jsonl, an empty list where there is none; a line that is no JSON object is passed over."""
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


def choose(outcomes: list[Outcome], trades: list[dict[str, Any]], case: tuple[str, ...]) -> list[str]:
    """The runs to show: the base case, the largest and the smallest gain of the same base, in this order."""
    scored = {o.subject: o.base for o in outcomes if o.kind == "run" and o.status == "scored"}
    ranked = [row["run"] for row in sorted(trades, key=lambda row: -row["gain"]) if row["run"] in scored]
    first = next((run for run in case if run in scored), None) or next(iter(ranked or scored), None)
    if first is None:
        return []
    ranked = [run for run in ranked if scored[run] == scored[first] and run != first]
    return list(dict.fromkeys([first, *ranked[:1], *ranked[-1:]]))[:MOST_RUNS]


def side_by_side(
    results: Path,
    outcomes: list[Outcome],
    trades: list[dict[str, Any]],
    case: tuple[str, ...],
    labels: dict[str, str],
    *,
    alpha: float,
) -> dict[str, Any] | None:
    """The section's content: subjects, their means over all prompts, and the prompts with all answers, `trained` of which
    stand in the training rows. None without answers."""
    runs = choose(outcomes, trades, case)
    base = next((o.base for o in outcomes if o.subject in runs), None)
    subjects = [subject for subject in (base, *runs) if subject]
    answers = {
        subject: {row["id"]: row for row in read_answers(results / "score" / subject / "answers.jsonl")}
        for subject in subjects
    }
    answers = {subject: rows for subject, rows in answers.items() if rows}
    if not answers:
        return None
    first = next(iter(answers.values()))
    prompts = [_prompt(id_, row, answers, labels) for id_, row in first.items()]
    gaps = {subject: _gaps(rows) for subject, rows in answers.items()}
    tuned = sum(subject != base for subject in answers)
    seen = {o.subject: o.record.samples / o.record.train_rows for o in outcomes if o.record and o.record.train_rows}
    means = [
        _means(labels[subject], list(rows.values()))
        | {
            "memory": _memory(
                gaps[subject],
                None if subject == base else gaps.get(base, {}),
                alpha / max(1, tuned),
                seen=seen.get(subject),
            )
        }
        for subject, rows in answers.items()
    ]
    trained = sum(row["in_training"] for row in first.values())
    headings = [heading for heading, _ in MEASURES.values()]
    return {"prompts": prompts, "means": means, "headings": headings, "trained": trained}


def _prompt(
    id_: str, row: dict[str, Any], answers: dict[str, dict[str, dict]], labels: dict[str, str]
) -> dict[str, Any]:
    shown = []
    for subject, rows in answers.items():
        if id_ in rows:
            shown.append({"label": labels[subject], "wordings": [_answer(rows[id_][wording]) for wording in WORDINGS]})
    return {
        "id": visible(id_, 80),
        "trained": row["in_training"],
        "question": visible(row["prompt"]["question"], MOST_CHARACTERS),
        "original": visible(row["original"]["question"], MOST_CHARACTERS),
        "reference": pieces(row["reference"]),
        "answers": shown,
    }


def _answer(found: dict[str, Any]) -> dict[str, Any]:
    if found.get("error"):
        return {"error": visible(found["error"], 300), "pieces": [], "facts": ""}
    facts = [
        f"similarity {score(found.get('similarity'), 'share')}",
        f"{found.get('new_tokens')} tokens",
        "ended by itself" if found.get("stopped") else "ran to the limit",
    ]
    if (found.get("repetition") or 0) > 0.2:
        facts.append(f"{score(found['repetition'], 'share')} repeated")
    return {"error": None, "pieces": pieces(found.get("answer") or ""), "facts": ", ".join(facts)}


def pieces(text: str) -> list[dict[str, str]]:
    """Text cut into prose and fenced code blocks: [{"kind": "text"|"code", "text"}], an empty answer as one empty piece."""
    text = visible(text, MOST_CHARACTERS)
    found, place = [], 0
    for fence in re.finditer(r"^```[^\n`]*\n(.*?)(?:^```\s*$|\Z)", text, flags=re.DOTALL | re.MULTILINE):
        found.append({"kind": "text", "text": text[place : fence.start()].strip("\n")})
        found.append({"kind": "code", "text": fence[1].rstrip("\n")})
        place = fence.end()
    found.append({"kind": "text", "text": text[place:].strip("\n")})
    return [piece for piece in found if piece["text"]] or [{"kind": "text", "text": ""}]


def _means(label: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the prompts in both wordings."""
    wordings = [
        [_mean(rows, wording, measure, unit) for measure, (_, unit) in MEASURES.items()] for wording in WORDINGS
    ]
    return {"label": label, "prompt": wordings[0], "original": wordings[1]}


def _mean(rows: list[dict[str, Any]], wording: str, measure: str, unit: str) -> str:
    values = [float(row[wording][measure]) for row in rows if row[wording].get(measure) is not None]
    return score(sum(values) / len(values), unit) if values else "–"


def _gaps(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Prompt of the training rows → similarity on the original wording minus that on the rephrased one."""
    trained = {id_: row for id_, row in rows.items() if row["in_training"]}
    pairs = {id_: [row[wording].get("similarity") for wording in WORDINGS] for id_, row in trained.items()}
    return {
        id_: round(original - prompt, 9) for id_, (prompt, original) in pairs.items() if None not in (prompt, original)
    }


def _memory(gaps: dict[str, float], base: dict[str, float] | None, alpha: float, *, seen: float | None) -> str:
    """How much more the trained wording gained in training than the other one: the difference of differences, paired by
    prompt. The base's own gap, which no training explains, is shown without a word (`base` None). `seen`: epochs; of less
    than one a share of the prompts was not trained on, which can only hide memorising."""
    if not gaps:
        return "–"
    if base is None:
        mean = sum(gaps.values()) / len(gaps)
        return f"{change(mean, 'share', words=True)} before any training"
    shared = [id_ for id_ in gaps if id_ in base]
    if len(shared) < fewest_units(alpha):
        return f"{len(shared)} prompts beside the base’s: too few to tell"
    before, after = (np.array([[found[id_] for id_ in shared]]) for found in (base, gaps))
    found = compare_paired(before, after, confidence=1 - alpha, draws=2000, seed=0)
    low, high = float(found.low[0]), float(found.high[0])
    word = "memorised in part" if low > 0 else "the other wording gained more" if high < 0 else "can’t tell"
    if low <= 0 and seen is not None and seen < 1:
        word += f"; it saw {score(seen, 'share')} of the rows"
    amount = change(float(found.difference[0]), "share", words=True, places=decimals(low, high))
    return f"{amount} ({between(low, high, 'share')}): {word}"
