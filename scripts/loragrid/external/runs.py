"""External runs: their settings, scores and losses, and which scores are better when higher."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from loragrid.comparing.diagnosing.run_evidence import LossPath
from loragrid.formatting import plain_name

# Task and metric; a table's column is a task with an empty metric.
ScoreKey = tuple[str, str]
# Words in the name of a score.
LOWER_IS_BETTER = {
    "loss",
    "perplexity",
    "ppl",
    "byte",
    "nll",
    "wer",
    "cer",
    "error",
    "errors",
    "brier",
    "mse",
    "mae",
}
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
    """One score.

    `stderr`, `items` and `higher_is_better` are None if the file does not state them.
    """

    value: float
    stderr: float | None
    items: int | None
    higher_is_better: bool | None = None


@dataclass
class ExternalRun:
    """One run as its files describe it.

    `path` holds its losses over `path_unit`: tokens, or steps if tokens were not logged.
    `path_step` is the last step in it. `items` maps a score to the values of its single items.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    scores: dict[ScoreKey, ExternalScore] = field(default_factory=dict)
    items: dict[ScoreKey, dict[str, float]] = field(default_factory=dict)
    path: LossPath | None = None
    path_unit: str = "steps"
    path_step: float = -1.0
    files: list[str] = field(default_factory=list)

    def trained(self) -> bool:
        """Whether the run shows any sign of training: losses, an adapter or a learning rate."""
        learning_rate = as_float(self.settings.get("learning_rate"))
        return self.path is not None or bool(self.settings.get("adapter")) or learning_rate > 0


@dataclass(frozen=True)
class ExternalResults:
    """All runs by name, and the `unused` files and `columns` of tables with the reasons."""

    runs: dict[str, ExternalRun]
    unused: list[tuple[str, str]]
    columns: dict[str, str]

    def higher_is_better(self, key: ScoreKey) -> bool | None:
        """Whether a higher score is better, by the files or else by the score's name.

        None if these contradict themselves.
        """
        scores = [run.scores[key] for run in self.runs.values() if key in run.scores]
        stated = {score.higher_is_better for score in scores} - {None}
        if len(stated) > 1:
            return None
        if stated:
            return stated.pop()
        words = name_words(key[1] or key[0])
        lower, higher = bool(words & LOWER_IS_BETTER), bool(words & HIGHER_IS_BETTER)
        if lower and higher:
            return None
        # ASSUME: an external score is better when it is higher, unless its name says otherwise.
        return not lower

    def unit(self, key: ScoreKey) -> str:
        """share if every run's value is between 0 and 1 and higher is better, else plain."""
        values = [run.scores[key].value for run in self.runs.values() if key in run.scores]
        if self.higher_is_better(key) and all(0 <= value <= 1 for value in values):
            return "share"
        return "plain"


def score_name(key: ScoreKey) -> str:
    """A score's name as words."""
    return plain_name(" ".join(key).strip())


def name_words(name: str) -> set[str]:
    """The words in a name of a column or metric: eval/word_ppl → eval, word, ppl."""
    return set(re.split(r"[^a-z0-9]+", name.lower())) - {""}


def is_number(value: Any) -> bool:
    """Whether a value from a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def as_float(value: Any) -> float:
    """A value from a file as a number, NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
