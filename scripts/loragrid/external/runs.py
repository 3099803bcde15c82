"""External runs: their settings, scores and losses, and which scores are better when higher."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from loragrid.comparing.diagnosing.run_evidence import LossPath
from loragrid.external.directions import known_direction
from loragrid.formatting import visible

# Task and metric; a table's column is a task with an empty metric.
ScoreKey = tuple[str, str]
# Settings that only a trained model has; 0 and words of absence are none.
TRAINED_BY = ("adapter", "method", "rank", "alpha", "learning_rate", "steps", "epochs", "train_tokens", "max_tokens")
ABSENT = (
    "",
    "none",
    "null",
    "nan",
    "-",
    "–",
    "n/a",
    "na",
    "0",
    "0.0",
    "false",
    "base",
    "baseline",
    "pretrained",
    "untrained",
)
LONGEST_NAME = 80


@dataclass(frozen=True)
class ExternalScore:
    """One score.

    `stderr`, `items` and `higher_is_better` are None if the file does not state them. `conditions`
    holds how it was measured as far as the file says: shots, chat template, task version, limit, ….
    """

    value: float
    stderr: float | None
    items: int | None
    higher_is_better: bool | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)


class Curve(NamedTuple):
    """A held-out score over the steps, epochs or tokens of its run's log."""

    places: np.ndarray
    values: np.ndarray


@dataclass
class ExternalRun:
    """One run as its files describe it.

    `other_settings` have names that are no known setting's: those that differ between runs become settings.
    `path` holds its losses over `path_unit`: tokens, or steps or epochs if tokens were not logged;
    `curves` its held-out scores by name. `logs` keeps the rows that both are made of, by the kind of
    their file. `rate_from_log`: its learning rate is the highest of a log. `items` maps a score to the
    values of its single items, `answers` and `prompts` a task to a digest of each item's. `groups` maps
    a group of lm-eval to its tasks.
    `model_arguments` are those that lm-eval loaded the model with. `replaced` are scores with other
    values in an earlier file.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    other_settings: dict[str, Any] = field(default_factory=dict)
    scores: dict[ScoreKey, ExternalScore] = field(default_factory=dict)
    items: dict[ScoreKey, dict[str, float]] = field(default_factory=dict)
    answers: dict[str, dict[str, str]] = field(default_factory=dict)
    prompts: dict[str, dict[str, str]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    model_arguments: str = ""
    path: LossPath | None = None
    path_unit: str = "steps"
    curves: dict[str, Curve] = field(default_factory=dict)
    logs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    rate_from_log: bool = False
    files: list[str] = field(default_factory=list)
    replaced: set[ScoreKey] = field(default_factory=set)

    def trained_by(self) -> str:
        """What shows that the run was trained, such as “rank 16”; empty if nothing does."""
        for name in TRAINED_BY:
            value = self.settings.get(name)
            if not is_absent(value):
                return f"{name.replace('_', ' ')} {visible(value, 60)}"
        return "losses of training" if self.path is not None else ""

    def trained(self) -> bool:
        """Whether the run shows any sign of training."""
        return bool(self.trained_by())


@dataclass(frozen=True)
class ExternalResults:
    """All runs by name, and the `unused` files and `columns` of tables with the reasons."""

    runs: dict[str, ExternalRun]
    unused: list[tuple[str, str]]
    columns: dict[str, str]

    def add_varied_settings(self) -> None:
        """Make settings of the runs' other settings that differ: of equal ones nothing can depend."""
        runs = list(self.runs.values())
        for name in dict.fromkeys(name for run in runs for name in run.other_settings):
            having = [run for run in runs if name in run.other_settings]
            if len({str(run.other_settings[name]) for run in having}) > 1:
                for run in having:
                    run.settings.setdefault(name, run.other_settings[name])

    def higher_is_better(self, key: ScoreKey) -> bool | None:
        """Whether a higher score is better, by the files or else by the score's name.

        None if the files contradict each other, or if the name is not on the list of known ones.
        """
        scores = [run.scores[key] for run in self.runs.values() if key in run.scores]
        stated = {score.higher_is_better for score in scores} - {None}
        if len(stated) > 1:
            return None
        if stated:
            return stated.pop()
        return known_direction(key[1] or key[0])

    def unit(self, key: ScoreKey) -> str:
        """share if every run's value is between 0 and 1 and lower is not better, else plain."""
        values = [run.scores[key].value for run in self.runs.values() if key in run.scores]
        if self.higher_is_better(key) and all(0 <= value <= 1 for value in values):
            return "share"
        return "plain"


def score_name(key: ScoreKey) -> str:
    """A score's name as words."""
    return shortened(" ".join(key).strip().replace("_", " ").replace("heldout", "held-out"), LONGEST_NAME)


def shortened(text: str, limit: int) -> str:
    """Untrusted text of at most `limit` characters; of a longer one the middle is left out.

    The middle, because names of runs begin alike and differ at the end.
    """
    text = visible(text)
    if len(text) <= limit:
        return text
    front = (limit - 1) // 2
    return f"{text[:front]}…{text[len(text) - (limit - 1 - front) :]}"


def is_absent(value: Any) -> bool:
    """Whether a setting says that there is nothing: empty, none, 0."""
    return value is None or value is False or str(value).strip().lower() in ABSENT


def is_number(value: Any) -> bool:
    """Whether a value from a file is a finite number."""
    # JSON has whole numbers that no float holds.
    largest = sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and -largest <= value <= largest


def as_float(value: Any) -> float:
    """A value from a file as a number, NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
