"""What is known of finished runs from elsewhere, and which way each of their scores is better."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from loragrid.comparing.run_evidence import LossPath

ScoreKey = tuple[str, str]  # task and metric; a table's column is a task without metric
# words of a score's name
LOWER_IS_BETTER = {"loss", "perplexity", "ppl", "byte", "nll", "wer", "cer", "error", "errors", "brier", "mse", "mae"}
HIGHER_IS_BETTER = {
    "acc",
    "accuracy",
    "f1",
    "em",
    "exact",
    "match",
    "bleu",
    "rouge",
    "pass",
    "score",
    "win",
    "mc1",
    "mc2",
}


@dataclass(frozen=True)
class ExternalScore:
    """One score: `stderr`, `items` and `higher_is_better` are None where the file does not tell."""

    value: float
    stderr: float | None
    items: int | None
    higher_is_better: bool | None = None


@dataclass
class ExternalRun:
    """What is known of one run. `path` has its losses over tokens, or over steps where tokens were not logged, up to step
    `path_step`; `items` the values of single items, by item."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    scores: dict[ScoreKey, ExternalScore] = field(default_factory=dict)
    items: dict[ScoreKey, dict[str, float]] = field(default_factory=dict)
    path: LossPath | None = None
    path_unit: str = "steps"
    path_step: float = -1.0
    files: list[str] = field(default_factory=list)

    def trained(self) -> bool:
        """Whether anything says that this run was trained: an untrained base has no learning rate, adapter or losses."""
        rate = as_float(self.settings.get("learning_rate"))
        return self.path is not None or bool(self.settings.get("adapter")) or rate > 0


@dataclass(frozen=True)
class ExternalResults:
    """All runs by name; the files that could not be used, and the tables' columns that were not, each with the reason."""

    runs: dict[str, ExternalRun]
    unused: list[tuple[str, str]]
    columns: dict[str, str]

    def higher_is_better(self, key: ScoreKey) -> bool | None:
        """Which way a score is better: what a file says, else what the name says; None where the name says both."""
        told = {run.scores[key].higher_is_better for run in self.runs.values() if key in run.scores} - {None}
        if told:
            return told.pop() if len(told) == 1 else None
        words = name_words(key[1] or key[0])
        lower, higher = bool(words & LOWER_IS_BETTER), bool(words & HIGHER_IS_BETTER)
        # ASSUME: a score from elsewhere whose name does not say so is better when it is higher.
        return None if lower and higher else not lower


def name_words(name: str) -> set[str]:
    """The words of a column's or metric's name: eval/word_perplexity → eval, word, perplexity."""
    return set(re.split(r"[^a-z0-9]+", name.lower())) - {""}


def is_number(value: Any) -> bool:
    """Whether a value of a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def as_float(value: Any) -> float:
    """A value of a file as a number, NaN where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
