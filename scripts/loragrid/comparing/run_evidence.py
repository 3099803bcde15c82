"""What the diagnosis of a run looks at: its loss path, how its answers ended, how far its adapter moved, its neighbours."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loragrid.records.outcomes import Outcome
from loragrid.runtime.atomic_files import sha256_json

ANSWER_MEASURES = ("new_tokens", "stopped", "repetition", "special_tokens", "distinct_2")
LARGEST_ADAPTER_BYTES = 512 * 2**20


@dataclass(frozen=True)
class LossPath:
    """Losses over tokens, each an array: `train` and `heldout` losses at `train_tokens` and `heldout_tokens`; gradient
    norms before clipping, NaN where not logged."""

    train_tokens: np.ndarray
    train: np.ndarray
    grad_norm: np.ndarray
    heldout_tokens: np.ndarray
    heldout: np.ndarray

    @property
    def from_untrained(self) -> bool:
        """Whether held-out loss was measured before the first update too, and after it."""
        return len(self.heldout) > 1 and self.heldout_tokens[0] == 0

    @property
    def trained_measurements(self) -> int:
        """Held-out measurements after training began."""
        return int((self.heldout_tokens > 0).sum())

    def heldout_at(self, tokens: float) -> float:
        """Held-out loss at a number of tokens, between measurements on the straight line; NaN beyond the last."""
        if not len(self.heldout) or tokens > self.heldout_tokens[-1]:
            return float("nan")
        return float(np.interp(tokens, self.heldout_tokens, self.heldout))


@dataclass(frozen=True)
class RunEvidence:
    """Everything about one run (or base) that a cause may rest on; None where it was not measured."""

    outcome: Outcome
    path: LossPath | None
    epochs: float | None
    answers: dict[str, dict[str, float]]  # task → measure → value
    base_answers: dict[str, dict[str, float]]
    distance: float | None
    neighbours: list[tuple[float, float, float]] = field(
        default_factory=list
    )  # (learning rate, held-out loss, distance)


def read_loss_path(path: Path) -> LossPath | None:
    """A losses.csv as arrays, or None where it is not there."""
    if not path.is_file():
        return None
    import pyarrow.csv

    table = pyarrow.csv.read_csv(path)
    column = {name: table.column(name) for name in table.column_names}
    kind = np.array(column["kind"].to_pylist(), dtype=object)
    numbers = {
        name: column[name].cast("double").to_numpy() if name in column else np.full(len(kind), np.nan)
        for name in ("tokens", "loss", "grad_norm")
    }
    train, heldout = kind == "train", kind == "heldout"
    return LossPath(
        train_tokens=numbers["tokens"][train],
        train=numbers["loss"][train],
        grad_norm=numbers["grad_norm"][train],
        heldout_tokens=numbers["tokens"][heldout],
        heldout=numbers["loss"][heldout],
    )


def answer_measures(outcome: Outcome) -> dict[str, dict[str, float]]:
    """Task → how its generated answers ended, from the metrics that are evidence and no score."""
    found: dict[str, dict[str, float]] = {}
    for task, score in (outcome.score.tasks if outcome.score else {}).items():
        measures = {name: score.metrics[name]["value"] for name in ANSWER_MEASURES if name in score.metrics}
        if measures:
            found[task] = {name: value for name, value in measures.items() if value is not None}
    return found


def adapter_distance(folder: Path) -> float | None:
    """How far the adapter moves the weights: the Frobenius norm of scale·B·A over all layers. None without a LoRA file.

    ‖BA‖² = Σ (BᵀB)∘(AAᵀ), so that no product of full size is formed.
    """
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if not weights.is_file() or not config.is_file() or weights.stat().st_size > LARGEST_ADAPTER_BYTES:
        return None
    from safetensors.numpy import load_file

    settings = json.loads(config.read_text(encoding="utf-8"))
    rank = settings["r"]
    scale = settings["lora_alpha"] / (rank**0.5 if settings.get("use_rslora") else rank)
    try:
        tensors = load_file(weights)
    except (TypeError, KeyError):
        return None  # a type that numpy does not know, such as bfloat16
    total = 0.0
    for name, a in tensors.items():
        b = tensors.get(re.sub(r"lora_A(?=\.|$)", "lora_B", name)) if "lora_A" in name else None
        if b is not None and a.ndim == 2 and b.ndim == 2:
            a, b = a.astype(np.float64), b.astype(np.float64)
            total += float(((b.T @ b) * (a @ a.T)).sum())
    return scale * total**0.5 if total else None


def gather_evidence(outcomes: list[Outcome], results: Path) -> dict[str, RunEvidence]:
    """Run → evidence, for the runs that were trained."""
    bases = {o.subject: answer_measures(o) for o in outcomes if o.kind == "base"}
    found: dict[str, RunEvidence] = {}
    for outcome in outcomes:
        if outcome.record is None:
            continue
        folder = results / "train" / outcome.subject
        record = outcome.record
        found[outcome.subject] = RunEvidence(
            outcome=outcome,
            path=read_loss_path(folder / record.losses_file),
            epochs=record.samples / record.train_rows if record.train_rows else None,
            answers=answer_measures(outcome),
            base_answers=bases.get(outcome.base, {}),
            distance=adapter_distance(folder / "adapter"),
        )
    _add_neighbours(found)
    return found


def _add_neighbours(found: dict[str, RunEvidence]) -> None:
    """Give each run the finished runs that differ from it in nothing but the learning rate."""
    groups: dict[str, list[RunEvidence]] = {}
    for evidence in found.values():
        cell = evidence.outcome.cell
        rest = {name: value for name, value in cell.identity.items() if name != "learning_rate"}
        groups.setdefault(sha256_json(rest | {"base": cell.base}), []).append(evidence)
    for members in groups.values():
        known = [(e.outcome.cell.learning_rate, _final_loss(e), e.distance or float("nan")) for e in members]
        for evidence in members:
            evidence.neighbours.extend(
                sorted(other for other, e in zip(known, members) if e is not evidence and np.isfinite(other[1]))
            )


def _final_loss(evidence: RunEvidence) -> float:
    record = evidence.outcome.record
    value = record.final_heldout_loss if record.status == "finished" else None
    return float("nan") if value is None else value
