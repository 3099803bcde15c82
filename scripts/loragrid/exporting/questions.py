"""What an exported form is asked: the study's prompts, or how held-out rows begin, and the most tokens of an answer."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loragrid.exporting.exported_run import ExportedRun
from loragrid.models.passes.row_losses import IGNORED
from loragrid.scoring.answers import REFERENCE_EXTRA, REFERENCE_FACTOR, WORDINGS
from loragrid.scoring.heldout.losses import read_rows
from loragrid.scoring.prompts import read_prompts, reference_ids

# Without prompts of the study: enough answers to tell 95 % from less, and enough tokens for a model to go astray.
OPENINGS, OPENING_TOKENS = 40, 64


@dataclass(frozen=True)
class Question:
    """A question as text, which the form's own chat template renders, or as token ids; the other is None."""

    text: str | None
    ids: list[int] | None
    most_tokens: int


def questions_of(run: ExportedRun, tokenizer: Any) -> list[Question]:
    """Both wordings of the study's prompts, or the beginnings of held-out rows if the study has no prompts."""
    source = run.study.scoring.qualitative
    if source is None:
        return _openings(run.data / "heldout.parquet")
    found = []
    for prompt in read_prompts(Path(source)):
        most = REFERENCE_FACTOR * len(reference_ids(tokenizer, prompt.reference)) + REFERENCE_EXTRA
        found += [Question(getattr(prompt, wording), None, most) for wording in WORDINGS]
    return found


def _openings(parquet: Path) -> list[Question]:
    """Rows up to their first token with loss; at least one token, for a row that is trained on as a whole."""
    _, rows = read_rows(parquet)
    found = []
    for ids, labels in rows[:OPENINGS]:
        first = next(place for place, label in enumerate(labels) if place > 0 and label != IGNORED)
        found.append(Question(None, list(ids[:first]), OPENING_TOKENS))
    return found


def as_json(questions: list[Question]) -> list[dict[str, Any]]:
    """The questions as plain values."""
    return [asdict(question) for question in questions]
