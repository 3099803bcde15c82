"""Whether an exported form matches the run: its held-out loss and greedy answers beside the expected ones."""

import json
import math
from dataclasses import dataclass, replace

from loragrid.exporting.exported_run import ExportedRun
from loragrid.exporting.questions import Measured
from loragrid.scoring.answers import WORDINGS
from loragrid.study.sections import HELDOUT_LOSS

# ASSUME: a form matches the run within 0.002 nats, which is a fifth of a percent of perplexity and less than two seeds
# differ by, and with 95 % of the same greedy answers: a rounded weight may turn a near tie.
MOST_NATS, LEAST_SAME = 0.002, 0.95


def signed_nats(nats: float) -> str:
    """A difference of losses with its sign and four decimals, without a minus before zero."""
    return f"{round(nats, 4) + 0.0:+.4f}"


@dataclass(frozen=True, kw_only=True)
class Parity:
    """One form beside its reference: losses in nats per loss token, and answers that are the same text.

    `reference`: what it was compared with. `other_prompts`: questions that the form's own tokenizer and chat template
    turn into other tokens. `own_loss`: the form's loss when it computes in the dtype of its weights and not in the one
    of the comparison; None if that is the same or was not measured.
    """

    form: str
    reference: str
    loss: float
    reference_loss: float
    rows: int
    answers: int
    same_answers: int
    other_prompts: int
    arithmetic: str
    own_loss: float | None = None

    @property
    def difference(self) -> float:
        """Loss minus that of the reference, nats."""
        return self.loss - self.reference_loss

    @property
    def shown_difference(self) -> str:
        """The difference as text."""
        return signed_nats(self.difference)

    @property
    def overflows(self) -> bool:
        """Whether the form's loss is not finite when it computes in the dtype of its weights."""
        return self.own_loss is not None and not math.isfinite(self.own_loss)

    @property
    def same_share(self) -> float:
        """Share of answers that are the same; 1 without answers."""
        return self.same_answers / self.answers if self.answers else 1.0

    @property
    def holds(self) -> bool:
        """Whether the form matches the run; False where a loss is not a number."""
        close = abs(self.difference) <= MOST_NATS
        return close and self.same_share >= LEAST_SAME and self.other_prompts == 0 and not self.overflows

    @property
    def answers_text(self) -> str:
        """The number of same answers."""
        return f"{self.same_answers} of {self.answers}" if self.answers else "no answers"

    @property
    def verdict(self) -> str:
        """Whether the form matches the run, in a word or two."""
        return "matches" if self.holds else "DIFFERS"

    @property
    def text(self) -> str:
        """What was found, as a clause."""
        found = (
            f"held-out loss {self.loss:.4f} against {self.reference_loss:.4f} ({self.shown_difference} nats, at most "
            f"{MOST_NATS:g})"
        )
        if self.answers:
            found += f", {self.same_answers} of {self.answers} greedy answers the same (at least {LEAST_SAME:.0%})"
        if self.other_prompts:
            found += f", other tokens of {self.other_prompts} prompts"
        if self.overflows:
            found += ", no number when it computes in the dtype of its weights"
        return found


def parity(form: str, measured: Measured, reference: Measured, *, name: str = "the run on its training base") -> Parity:
    """A form beside its reference, which is called `name`."""
    same = sum(one == other for one, other in zip(measured.answers, reference.answers, strict=True))
    others = sum(one != other for one, other in zip(measured.prompts, reference.prompts, strict=True))
    return Parity(
        form=form,
        reference=name,
        loss=measured.loss,
        reference_loss=reference.loss,
        rows=measured.rows,
        answers=len(reference.answers),
        same_answers=same,
        other_prompts=others,
        arithmetic=measured.arithmetic,
        own_loss=measured.own_loss,
    )


def parity_with_study(form: str, measured: Measured, run: ExportedRun) -> Parity:
    """The exported adapter, or whole model, beside what the study measured of the run before."""
    answers = _scored_answers(run)
    # The study's prompts come first; it did not ask the other questions.
    seen = replace(measured, answers=measured.answers[: len(answers)])
    scored = replace(seen, loss=_scored_loss(run), answers=answers)
    return parity(form, seen, scored, name="what the study measured")


def _is_scored_so(run: ExportedRun) -> bool:
    """Whether the run was scored as it is measured here: by transformers, on the base in the precision of training."""
    score = run.score
    return score is not None and score.engine == "hf" and score.precision == run.entry.precision


def _scored_loss(run: ExportedRun) -> float:
    task = run.score.tasks.get(HELDOUT_LOSS) if _is_scored_so(run) else None
    if task is not None and task.status == "scored":
        return task.metrics["loss"]["value"]
    return run.record.final_heldout_loss


def _scored_answers(run: ExportedRun) -> list[str]:
    """The score's answers to the study's prompts; none if it has none, or has those of other arithmetic."""
    file = run.results / "score" / run.name / "answers.jsonl"
    if not _is_scored_so(run) or not file.is_file():
        return []
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row[wording]["answer"] for row in rows for wording in WORDINGS]
