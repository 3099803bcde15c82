"""What goes into the report's page, section by section, as plain values for the templates."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from study.cards import read_cards
from study.comparisons import AXES, axis_text
from study.durable import read_json
from study.errors import UserError
from study.findings import Evidence, axis_finding
from study.outcomes import STATUSES, Outcome
from study.records import RunRecord
from study.study_file import Study
from study.wording import (
    AXIS_NAMES,
    axis_value,
    between,
    change,
    duration,
    listed,
    mebibytes,
    number,
    p_value,
    plain_name,
    plural,
    score,
    setting,
    visible,
    whole,
)


@dataclass(frozen=True)
class Material:
    """All that the page is made from, read once."""

    study: Study
    results: Path
    outcomes: list[Outcome]
    evidence: Evidence
    scores: pd.DataFrame
    runs: pd.DataFrame
    cards: dict[str, dict[str, Any]]


def gather(study: Study, results: Path, outcomes: list[Outcome]) -> Material:
    """Read what compare left. A missing table is a `UserError`: compare comes first."""
    folder = results / "compare"
    summary = read_json(folder / "compare.json")
    labels = {o.subject: label(o) for o in outcomes}
    case = tuple(o.subject for o in outcomes if o.cell and not set(o.cell.departs) - {"seed"})
    evidence = Evidence(summary, read_table(folder / "comparisons.csv"), read_table(folder / "axes.csv"), labels, case)
    cards = {path.parent.name: read_json(path) for path in sorted((results / "data").glob("*/card.json"))}
    runs = read_table(folder / "runs.csv").set_index("subject")
    return Material(study, results, outcomes, evidence, read_table(folder / "scores.csv"), runs, cards)


def read_table(path: Path) -> pd.DataFrame:
    """A CSV of compare; texts stay texts, an empty verdict stays empty, a table without rows is an empty frame."""
    try:
        table = pd.read_csv(path, dtype={"value": str, "base_case_value": str} if path.stem == "axes" else None)
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=["task", "group", "run", "axis", "verdict", "improvement"])
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run compare first") from None
    if "verdict" in table:
        table["verdict"] = table["verdict"].fillna("")
    return table


def label(outcome: Outcome) -> str:
    """A run by what sets it apart: base case, learning rate 0.1, gemma-s."""
    if outcome.cell is None:
        return f"untrained {outcome.model}"
    parts = []
    for axis, value in outcome.cell.departs.items():
        text = (
            setting(value) if axis == "learning_rate" else axis_text(axis, tuple(value) if axis == "batch" else value)
        )
        parts.append(text if axis == "model" else f"{AXIS_NAMES[axis]} {text}")
    return visible(", ".join(parts)) or "base case"


def asked(material: Material) -> list[str]:
    """What was asked, in sentences: the grid, the training, the scoring."""
    settings = material.study.settings
    runs = [o for o in material.outcomes if o.cell and "search" not in o.cell.departs]
    case = settings["base_case"]
    axes = [AXIS_NAMES[axis] for axis in AXES if len({getattr(o.cell, axis) for o in runs}) > 1]
    design = "every combination of" if settings["grid"]["design"] == "factorial" else "single departures from it in"
    budget, amount = next(iter(settings["training"]["budget"].items()))
    seeds = sorted({o.cell.seed for o in runs})
    targets, kept = settings["scoring"]["target"], settings["scoring"]["retention"]
    return [
        f"{plural(len(runs), 'LoRA run')}: a base case (model {visible(case['model'])}, learning rate "
        f"{setting(case['learning_rate'])}, rank {case['rank']}, batch {axis_text('batch', case['batch'])}) and "
        f"{design} {listed(axes) or 'nothing'}.",
        f"Each trains on {plural(amount, budget.removesuffix('s'))} and is then scored, beside its untrained base, on "
        f"{plural(len(targets), 'target task')} ({_names(targets)}) that training should improve"
        + (f", and on {plural(len(kept), 'retention task')} ({_names(kept)}) to see what it forgets." if kept else "."),
        f"{'Seed' if len(seeds) == 1 else 'Seeds'}: {listed([str(seed) for seed in seeds])}.",
    ]


def _names(tasks: list[str]) -> str:
    return listed([plain_name(Path(task).stem) for task in tasks])


def axis_rows(material: Material, axis: str) -> list[dict[str, Any]]:
    """The table under an axis's pictures: every value on every task against the base case."""
    table = material.evidence.axes
    if table.empty:
        return []
    tasks = material.evidence.summary["tasks"]
    return [
        comparison_row(row, tasks[row["task"]]["unit"], axis_value(axis, row["value"]))
        for _, row in table[table["axis"] == axis].iterrows()
    ]


def comparison_row(row: pd.Series, unit: str, name: str) -> dict[str, Any]:
    """One comparison as texts."""
    told = row["verdict"] != ""
    reason = row.get("reason")
    return {
        "name": visible(name, 80),
        "task": plain_name(row["task"]),
        "before": score(row.get("base_case_score", row.get("base_value")), unit),
        "after": score(row.get("score", row.get("value")) if "score" in row else row.get("value"), unit),
        "difference": change(row["difference"], unit, words=True),
        "interval": between(row.get("low"), row.get("high"), unit) if told else "",
        "p": p_value(row.get("p_corrected")),
        "detectable": change(row.get("detectable"), unit).lstrip("+") if told else "–",
        "verdict": row["verdict"] or "not compared",
        "reason": visible(reason, 200) if isinstance(reason, str) else "",
    }


def _other_tokens(material: Material) -> bool:
    """Whether the runs' held-out tokens differ, so that losses across models say nothing."""
    return len({card.get("heldout_fingerprint") for card in material.cards.values()}) > 1


def axis_sections(material: Material) -> list[dict[str, Any]]:
    """One section per axis that the study varies."""
    runs = [o.cell for o in material.outcomes if o.cell and "search" not in o.cell.departs]
    varied = [axis for axis in AXES if len({getattr(cell, axis) for cell in runs}) > 1]
    return [
        {
            "axis": axis,
            "title": AXIS_NAMES[axis].capitalize(),
            "finding": axis_finding(material.evidence, axis),
            "rows": axis_rows(material, axis),
            "other_tokens": axis == "model" and _other_tokens(material),
        }
        for axis in varied
    ]


def run_rows(material: Material) -> list[dict[str, Any]]:
    """The table of all runs and bases, failed and missing ones with their reason."""
    tasks = material.evidence.summary["tasks"]
    table = material.evidence.comparisons
    verdicts = {} if table.empty else table.set_index(["run", "task"])["verdict"].to_dict()
    rows = []
    for outcome in material.outcomes:
        cell, record = outcome.cell, outcome.record
        found = []
        for name, task in tasks.items():
            scored = outcome.score.tasks.get(name) if outcome.score else None
            value = scored.metrics[task["metric"]]["value"] if scored and task["metric"] in scored.metrics else None
            told = verdicts.get((outcome.subject, name), "")
            found.append({"value": score(value, task["unit"]), "sort": value, "verdict": told})
        rows.append(
            {
                "subject": outcome.subject,
                "label": material.evidence.labels[outcome.subject],
                "kind": outcome.kind,
                "model": visible(outcome.model),
                "learning_rate": setting(cell.learning_rate) if cell else "–",
                "rank": cell.rank if cell else "–",
                "batch": axis_text("batch", cell.batch) if cell else "–",
                "seed": cell.seed if cell else "–",
                "status": outcome.status,
                "status_text": STATUSES[outcome.status]
                if cell
                else "scored"
                if outcome.status == "scored"
                else outcome.status,
                "reason": visible(outcome.reason or "", 300),
                "notes": [visible(note, 300) for made in (record, outcome.score) if made for note in made.notes],
                "scores": found,
                "equal": number(_cell(material.runs, outcome.subject, "heldout_loss_at_equal_tokens")),
                "updates": whole(record.steps) if record else "–",
                "tokens": whole(record.tokens) if record else "–",
                "seconds": duration(record.train_seconds) if record else "–",
            }
        )
    return rows


def _cell(table: pd.DataFrame, subject: str, column: str) -> float | None:
    return float(table.at[subject, column]) if column in table and subject in table.index else None


def diagnosis_rows(material: Material) -> list[dict[str, Any]]:
    """Per run with a fault: its label and causes."""
    labels = material.evidence.labels
    return [
        {"label": labels[run], "causes": causes}
        for run, causes in material.evidence.summary["diagnoses"].items()
        if causes and run in labels
    ]


def healthy_runs(material: Material) -> list[str]:
    """Labels of the trained runs in which no fault was found."""
    labels = material.evidence.labels
    return [
        labels[run] for run, causes in material.evidence.summary["diagnoses"].items() if not causes and run in labels
    ]


def base_fault_rows(material: Material) -> list[dict[str, Any]]:
    """Per base with a fault: its label and causes, for the note above all comparisons."""
    labels = material.evidence.labels
    return [
        {"label": labels[base], "causes": causes}
        for base, causes in material.evidence.summary["base_faults"].items()
        if base in labels
    ]


def cost_rows(material: Material) -> list[dict[str, Any]]:
    """What each run cost, and what a point of target gain cost."""
    gains = {row["run"]: row["gain"] for row in material.evidence.summary["trade_offs"]}
    share = material.evidence.unit == "share"
    rows = []
    for outcome in material.outcomes:
        record = outcome.record
        if record is None:
            continue
        gain = gains.get(outcome.subject)
        trainable = record.trainable_parameters
        per_point = record.train_seconds / (gain * 100) if share and gain and gain > 0 else None
        rows.append(
            {
                "label": material.evidence.labels[outcome.subject],
                "train": duration(record.train_seconds),
                "score": duration(outcome.score.seconds if outcome.score else None),
                "tokens_per_second": whole(record.tokens_per_second),
                "tokens": whole(record.tokens),
                "samples": whole(record.samples),
                "updates": whole(record.steps),
                "padding": score(record.padding_share, "share"),
                "memory": mebibytes(record.peak_vram_mib or record.peak_rss_mib),
                "memory_kind": "GPU" if record.peak_vram_mib else "RAM",
                "energy": "not metered"
                if record.energy_joules is None
                else f"{number(record.energy_joules / 3600)} Wh",
                "speed": speed(record),
                "trainable": f"{whole(trainable)} ({number(100 * trainable / record.total_parameters, 2)}%)",
                "per_point": "–" if per_point is None else duration(per_point),
            }
        )
    return rows


def arithmetic(record: RunRecord) -> float:
    """Floating-point operations per second of training: 4 per parameter of the frozen base and 6 per trained one, per token.

    Forward takes 2 per parameter and token, the backward pass to the activations 2 more, to the trained weights another 2
    (Kaplan et al. 2020, arXiv:2001.08361, appendix B, without the part for frozen weights). Attention scores are left out.
    """
    frozen = record.total_parameters - record.trainable_parameters
    return (4 * frozen + 6 * record.trainable_parameters) * record.tokens_per_second


def speed(record: RunRecord) -> str:
    """Arithmetic per second, and its share of the card's peak where config/cards.yaml knows the card."""
    done = arithmetic(record)
    text = f"{number(done / 1e12)} TFLOP/s" if done >= 1e11 else f"{number(done / 1e9)} GFLOP/s"
    name = str(record.device.get("name", "")).lower()
    cards = (card for card in read_cards().values() if any(known.lower() in name for known in card["names"]))
    peak = next((card["peak_tflops"] for card in cards), None)
    return (
        f"{text}, {score(done / (peak * 1e12), 'share')} of peak"
        if peak and record.device.get("kind") == "cuda"
        else text
    )


def total_cost(material: Material) -> str:
    """One sentence: the time that the whole study took."""
    records = [o.record for o in material.outcomes if o.record]
    train = sum(record.train_seconds for record in records)
    scoring = sum(o.score.seconds for o in material.outcomes if o.score)
    where = listed(sorted({visible(str(record.device.get("name")), 60) for record in records})) or "no machine"
    on_gpu = sum(record.train_seconds for record in records if record.device.get("kind") == "cuda") / 3600
    gpu = f" ({number(on_gpu)} GPU-hours of training)" if on_gpu else ""
    return f"Training took {duration(train)} and scoring {duration(scoring)} in all, on {where}{gpu}."
