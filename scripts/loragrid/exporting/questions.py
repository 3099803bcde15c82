"""Questions to an exported form, the study's prompts and then openings of held-out rows, and what is measured."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loragrid.exporting.exported_run import ExportedRun
from loragrid.models.passes.row_losses import IGNORED
from loragrid.scoring.answers import REFERENCE_EXTRA, REFERENCE_FACTOR, WORDINGS
from loragrid.scoring.heldout.losses import read_rows
from loragrid.scoring.prompts import read_prompts, reference_ids

# ASSUME: 40 answers tell 95 % from less (two may differ); a study with fewer prompts is asked held-out rows too.
LEAST_QUESTIONS = 40
# Enough tokens for a model to go astray, few enough for a CPU.
OPENING_TOKENS = 32


@dataclass(frozen=True)
class Question:
    """A question as text, which the form's own chat template renders, or as token ids; the other is None."""

    text: str | None
    ids: list[int] | None
    most_tokens: int


@dataclass(frozen=True)
class Measured:
    """Mean held-out loss in nats per loss token over `rows` rows; answers as text; the prompts' token ids; arithmetic.

    `own_loss`: the loss in the dtype of the weights, if the rest was computed in another one.
    """

    loss: float
    rows: int
    answers: list[str]
    prompts: list[list[int]]
    arithmetic: str
    own_loss: float | None = None


def questions_of(run: ExportedRun, tokenizer: Any) -> list[Question]:
    """Both wordings of the study's prompts, in their order, then openings of held-out rows up to `LEAST_QUESTIONS`."""
    found = []
    source = run.study.scoring.qualitative
    for prompt in [] if source is None else read_prompts(Path(source)):
        most = REFERENCE_FACTOR * len(reference_ids(tokenizer, prompt.reference)) + REFERENCE_EXTRA
        found += [Question(getattr(prompt, wording), None, most) for wording in WORDINGS]
    return found + _openings(run.data / "heldout.parquet", max(0, LEAST_QUESTIONS - len(found)))


def _openings(parquet: Path, count: int) -> list[Question]:
    """Rows up to their first token with loss; at least one token, for a row that is trained on as a whole."""
    _, rows = read_rows(parquet)
    found = []
    for ids, labels in rows[:count]:
        first = next(place for place, label in enumerate(labels) if place > 0 and label != IGNORED)
        found.append(Question(None, list(ids[:first]), OPENING_TOKENS))
    return found


def as_json(questions: list[Question]) -> list[dict[str, Any]]:
    """The questions as plain values."""
    return [asdict(question) for question in questions]
