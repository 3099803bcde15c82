"""The tidy tables of a study: one row per run and base with every setting, loss, score and cost."""

from typing import Any

import numpy as np
import pandas as pd

from loragrid.comparing.clustered_means import mean_interval
from loragrid.comparing.item_tables import ItemTable
from loragrid.records.outcomes import Outcome

FROM_RECORD = (
    "backend data_id data_fingerprint train_rows heldout_rows base_source base_commit base_sha256 steps planned_steps samples "
    "tokens loss_tokens padding_share train_seconds tokens_per_second peak_vram_mib peak_rss_mib energy_joules "
    "trainable_parameters total_parameters final_train_loss first_heldout_loss final_heldout_loss adapter_sha256"
).split()


def run_rows(outcomes: list[Outcome], more: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One dict per subject: settings, what training cost and came to, every task's metrics, and `more` columns by run."""
    tasks: dict[str, list[str]] = {}
    for outcome in outcomes:
        for task, score in (outcome.score.tasks if outcome.score else {}).items():
            known = tasks.setdefault(task, [])
            known += [metric for metric in score.metrics if metric not in known]
    none = dict.fromkeys(key for columns in more.values() for key in columns)
    return [
        _settings(o) | _training(o) | none | more.get(o.subject, {}) | _scores(o, tasks) | _origin(o) for o in outcomes
    ]


def _settings(outcome: Outcome) -> dict[str, Any]:
    """The axes under names of their own, and every other setting that determines a run, such as `training.budget.tokens`."""
    cell = outcome.cell
    identity = {part: cell.identity[part] for part in ("data", "training")} if cell else {}
    every = pd.json_normalize(identity).to_dict("records")[0] if cell else {}
    alpha = every.pop("training.alpha", None)
    return {
        "subject": outcome.subject,
        "kind": outcome.kind,
        "status": outcome.status,
        "reason": outcome.reason,
        "base": outcome.base,
        "model": outcome.model,
        "learning_rate": cell.learning_rate if cell else None,
        "rank": cell.rank if cell else None,
        "alpha": alpha,
        "per_device_batch": cell.batch[0] if cell else None,
        "accumulation": cell.batch[1] if cell else None,
        "effective_batch": cell.batch[0] * cell.batch[1] if cell else None,
        "seed": cell.seed if cell else None,
        "departs": ",".join(cell.departs) if cell else None,
        "precision": outcome.score.precision if outcome.score else None,
        **{name: " ".join(value) if isinstance(value, list) else value for name, value in every.items()},
    }


def _training(outcome: Outcome) -> dict[str, Any]:
    record = outcome.record
    row = {name: getattr(record, name) if record else None for name in FROM_RECORD}
    return row | {
        "sessions": len(record.sessions) if record else None,
        "device": (record.device.get("name") if record else None),
        "notes": "; ".join(record.notes) if record and record.notes else None,
        "score_seconds": outcome.score.seconds if outcome.score else None,
    }


def _scores(outcome: Outcome, tasks: dict[str, list[str]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for task, metrics in tasks.items():
        score = outcome.score.tasks.get(task) if outcome.score else None
        row[f"{task}.status"] = score.status if score else None
        row[f"{task}.reason"] = score.reason if score else None
        for metric in metrics:
            found = (score.metrics if score else {}).get(metric, {})
            row[f"{task}.{metric}"] = found.get("value")
            row[f"{task}.{metric}.stderr"] = found.get("stderr")
    return row


def _origin(outcome: Outcome) -> dict[str, Any]:
    """Which code and commit trained and scored it, and when."""
    record, score = outcome.record, outcome.score
    return {
        "train_code": record.code if record else None,
        "train_commit": record.git.get("commit") if record else None,
        "train_finished_at": record.finished_at if record else None,
        "score_code": score.code if score else None,
        "score_commit": score.git.get("commit") if score else None,
        "score_base_commit": score.base_commit if score else None,
        "score_notes": "; ".join(score.notes) if score and score.notes else None,
        "score_finished_at": score.finished_at if score else None,
    }


def score_rows(tables: dict[str, ItemTable], confidence: float) -> list[dict[str, Any]]:
    """One dict per subject and task: the main metric with its interval."""
    rows = []
    for table in tables.values():
        for subject, values in table.values.items():
            mask = ~np.isnan(values)
            if not mask.any():
                continue
            weights = table.weights[subject][mask] if table.weights else None
            clusters = table.clusters[mask] if table.clusters is not None else None
            found = mean_interval(values[mask], weights=weights, clusters=clusters, confidence=confidence)
            head = {"subject": subject, "task": table.task, "group": table.group, "metric": table.metric}
            rows.append(head | {"items": int(mask.sum())} | found)
    return rows
