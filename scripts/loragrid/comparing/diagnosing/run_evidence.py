"""The evidence behind a run's diagnosis: losses, answers, adapter and neighbouring runs."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from loragrid.comparing.comparisons import setting_key
from loragrid.comparing.diagnosing.loss_margins import LossMargin
from loragrid.records.outcomes import Outcome
from loragrid.records.seal import check_sealed
from loragrid.runtime.atomic_files import sha256_json
from loragrid.statistics.seed_spread import seed_spreads

# Metrics that describe an answer's form and not its quality: evidence for a cause, but no score.
ANSWER_MEASURES = ("new_tokens", "stopped", "repetition", "special_tokens", "distinct_2")
# The norm of a larger adapter is left out: it would have to fit into memory in full precision.
LARGEST_ADAPTER_BYTES = 512 * 2**20


@dataclass(frozen=True)
class LossPath:
    """Losses in nats over tokens seen: `train` at `train_tokens`, `heldout` at `heldout_tokens`.

    `grad_norm` holds the gradient norms before clipping, one per training loss; NaN where not
    logged.
    """

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
        """Held-out loss at a number of tokens, interpolated; NaN beyond the last measurement."""
        if not len(self.heldout) or tokens > self.heldout_tokens[-1]:
            return float("nan")
        return float(np.interp(tokens, self.heldout_tokens, self.heldout))


class Neighbour(NamedTuple):
    """A finished run that differs only in the learning rate; an unknown `distance` is NaN."""

    learning_rate: float
    heldout_loss: float
    distance: float


@dataclass(frozen=True)
class RunEvidence:
    """Everything about one run that a cause may rest on; None where it was not measured.

    `answers` and `base_answers` map a task to its measures; `distance` is how far the adapter moved
    the weights. `lowest_loss` is the lowest final held-out loss of all runs on the same base and data,
    `seed_sd` the standard deviation of a final loss between seeds.
    """

    outcome: Outcome
    path: LossPath | None
    epochs: float | None
    answers: dict[str, dict[str, float]]
    base_answers: dict[str, dict[str, float]]
    distance: float | None
    neighbours: tuple[Neighbour, ...] = ()
    lowest_loss: float | None = None
    seed_sd: float | None = None

    @property
    def margin(self) -> LossMargin:
        """From which difference on two held-out losses of this run's base differ."""
        untrained = None if self.outcome is None else self.outcome.record.first_heldout_loss
        measured = [neighbour.heldout_loss for neighbour in self.neighbours]
        if self.path is not None and self.path.from_untrained:
            untrained = float(self.path.heldout[0])
            measured += [float(loss) for loss in self.path.heldout if np.isfinite(loss)]
        if self.lowest_loss is not None:
            measured.append(self.lowest_loss)
        if untrained is None or not measured:
            return LossMargin(None, self.seed_sd)
        return LossMargin(untrained - min(measured), self.seed_sd)


def read_loss_path(path: Path) -> LossPath | None:
    """A losses.csv as arrays, or None if there is no such file."""
    check_sealed(path)
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
    """Task → the measures of its generated answers' form."""
    found: dict[str, dict[str, float]] = {}
    if outcome.score is None:
        return found
    for task, score in outcome.score.tasks.items():
        measures = {name: score.metrics[name]["value"] for name in ANSWER_MEASURES if name in score.metrics}
        if measures:
            found[task] = {name: value for name, value in measures.items() if value is not None}
    return found


def adapter_distance(folder: Path) -> float | None:
    """How far the adapter moves the weights: the norm of scale·B·A over all layers.

    It is the Frobenius norm of the update of Hu et al. 2021, arXiv:2106.09685.

    None without a LoRA file, for another kind of adapter, for a very large file, and for a type
    that numpy does not know, such as bfloat16.
    """
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    check_sealed(folder)
    if not weights.is_file() or not config.is_file() or weights.stat().st_size > LARGEST_ADAPTER_BYTES:
        return None
    from safetensors.numpy import load_file

    settings = json.loads(config.read_text(encoding="utf-8"))
    # Other adapters move the weights by more than B·A: DoRA rescales them, IA3 has no such product.
    if settings.get("peft_type", "LORA") != "LORA" or settings.get("use_dora"):
        return None
    rank = settings["r"]
    # Rank-stabilised LoRA divides by the root of the rank (Kalajdzievski 2023, arXiv:2312.03732).
    scale = settings["lora_alpha"] / (rank**0.5 if settings.get("use_rslora") else rank)
    try:
        tensors = load_file(weights)
    except (TypeError, KeyError):
        return None
    total = 0.0
    for name, a in tensors.items():
        if "lora_A" not in name:
            continue
        b = tensors.get(re.sub(r"lora_A(?=\.|$)", "lora_B", name))
        if b is not None and a.ndim == 2 and b.ndim == 2:
            # ‖BA‖² = Σ (BᵀB)∘(AAᵀ): rank × rank products instead of one of the layer's full size.
            a, b = a.astype(np.float64), b.astype(np.float64)
            total += float(((b.T @ b) * (a @ a.T)).sum())
    return scale * total**0.5 if total else None


def gather_evidence(outcomes: list[Outcome], results: Path) -> dict[str, RunEvidence]:
    """Run → evidence, for the runs with a training record."""
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
    return _with_references(_with_neighbours(found))


def _with_references(found: dict[str, RunEvidence]) -> dict[str, RunEvidence]:
    """The evidence with what the other runs on its base and data reached, and their seeds' spread."""
    groups: dict[tuple[str, str], list[str]] = {}
    for run, evidence in found.items():
        groups.setdefault((evidence.outcome.base, evidence.outcome.cell.data), []).append(run)
    referred = {}
    for runs in groups.values():
        losses = {run: loss for run in runs if (loss := _final_loss(found[run].outcome)) is not None}
        lowest = min(losses.values(), default=None)
        deviation = _seed_sd(found, losses)
        referred |= {run: replace(found[run], lowest_loss=lowest, seed_sd=deviation) for run in runs}
    return {run: referred[run] for run in found}


def _seed_sd(found: dict[str, RunEvidence], losses: dict[str, float]) -> float | None:
    """Standard deviation of a final loss between seeds: pooled, or the median of the settings' own ones."""
    settings: dict[str, list[float]] = {}
    for run, loss in losses.items():
        settings.setdefault(setting_key(found[run].outcome.cell), []).append(loss)
    spreads = list(seed_spreads({key: np.array(own) for key, own in settings.items()}).values())
    if not spreads:
        return None
    pooled = [spread.variance for spread in spreads if spread.pooled]
    # A median, because one setting that broke down would widen the margin of all others.
    return float(np.median(pooled or [spread.variance for spread in spreads])) ** 0.5


def _with_neighbours(found: dict[str, RunEvidence]) -> dict[str, RunEvidence]:
    """The evidence with each run's neighbours: finished runs at other learning rates."""
    groups: dict[str, list[str]] = {}
    for run, evidence in found.items():
        cell = evidence.outcome.cell
        # By the whole identity, because a search's winner may differ in settings that are no axis.
        rest = {name: value for name, value in cell.identity.items() if name != "learning_rate"}
        groups.setdefault(sha256_json(rest | {"base": cell.base}), []).append(run)
    with_neighbours = {}
    for runs in groups.values():
        finished = {run: neighbour for run in runs if (neighbour := _as_neighbour(found[run])) is not None}
        for run in runs:
            others = sorted(neighbour for other, neighbour in finished.items() if other != run)
            with_neighbours[run] = replace(found[run], neighbours=tuple(others))
    return {run: with_neighbours[run] for run in found}


def _as_neighbour(evidence: RunEvidence) -> Neighbour | None:
    """The run as others see it; None unless it finished with a finite loss."""
    loss = _final_loss(evidence.outcome)
    if loss is None:
        return None
    return Neighbour(evidence.outcome.cell.settings.learning_rate, loss, evidence.distance or float("nan"))


def _final_loss(outcome: Outcome) -> float | None:
    """The final held-out loss of a finished run, None if it has none that is finite."""
    loss = outcome.record.final_heldout_loss
    finished = outcome.record.status == "finished" and loss is not None and np.isfinite(loss)
    return loss if finished else None
