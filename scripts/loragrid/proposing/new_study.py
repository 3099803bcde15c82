"""A new study: read the data and the model, choose settings, write the study file, and say how long it takes."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from loragrid.errors import UserError
from loragrid.formatting import plural
from loragrid.paths import ROOT
from loragrid.proposing.choices import data_note, model_note, propose, with_warmup
from loragrid.proposing.costs import Costs, costs_of, device_of
from loragrid.proposing.data_findings import DataFindings, read_data
from loragrid.proposing.model_findings import ModelFindings, read_model
from loragrid.proposing.plan_lines import longer_line, plan_lines
from loragrid.proposing.proposal import Proposal, study_text, within_project
from loragrid.proposing.request import Request, key_of
from loragrid.proposing.time_limit import LONGER_HOURS, USUAL_HOURS, fit_hours
from loragrid.runtime.atomic_files import write_text

MANY = 0.1  # share of the rows from which on a loss of rows is a warning
STUDIES = ROOT / "config" / "studies"


@dataclass(frozen=True)
class NewStudy:
    """A proposed study: the text of its file, what was found, and what the plan says, as lines."""

    name: str
    text: str
    lines: tuple[str, ...]
    cores: int

    @property
    def file(self) -> Path:
        """Where the study file belongs."""
        return STUDIES / f"{self.name}.yaml"


def new_study(request: Request, *, command: str) -> NewStudy:
    """Propose a study; nothing is written. `command`: how it was asked for, for the file's first line.

    Raises `UserError` for data and models that cannot be used, and for a study of that name.
    """
    check_name(request.name)
    source, entry = request.data_source, request.model_entry
    model = read_model(entry, key=key_of(request.model))
    device = device_of(request.card)
    with tempfile.TemporaryDirectory() as folder:
        data = read_data(_absolute(source), request.columns, model.template, folder=Path(folder))
    results = ROOT / "results" / request.name
    whole = propose(request, data, model, device, command=command)
    proposal, costs = _within(whole, request.hours or USUAL_HOURS[device.kind], results)
    lines = [*_found(data, model, proposal), *plan_lines(proposal, costs)]
    if request.hours is None and device.kind == "cpu" and proposal.left_out:
        lines.append(longer_line(LONGER_HOURS, _within(whole, LONGER_HOURS, results)[1]))
    return NewStudy(request.name, study_text(proposal), tuple(lines), proposal.cores)


def _within(whole: Proposal, limit: float, results: Path) -> tuple[Proposal, Costs]:
    """The proposal cut to that many hours, and its costs."""
    proposal = fit_hours(whole, limit, results=results)
    proposal = with_warmup(proposal, costs_of(proposal, results).updates)
    return proposal, costs_of(proposal, results)


def check_name(name: str) -> None:
    """Raise `UserError` for a study or results of that name: nothing of them may be overwritten."""
    for found in (STUDIES / f"{name}.yaml", ROOT / "results" / name):
        if found.exists():
            raise UserError(
                f"NAME: {within_project(found)} is there already. "
                f"Fix: give the new study another name, such as NAME={name}-2."
            )


def write_study(study: NewStudy) -> Path:
    """Write the study file of a name that is not taken, and return its path."""
    check_name(study.name)
    write_text(study.file, study.text)
    return study.file


def _absolute(source: dict) -> dict:
    return source | {"path": str(ROOT / source["path"])} if "path" in source else source


def _found(data: DataFindings, model: ModelFindings, proposal: Proposal) -> list[str]:
    longest = proposal.run["max_length_tokens"]
    lines = [*data_note(data).splitlines(), *f"{model.key}: {model_note(model)}".splitlines()]
    asked = data.heldout_rows == proposal.heldout_rows
    held = data.heldout_found if asked else proposal.heldout_rows
    lines.append(f"{plural(held, 'row')} held out, {proposal.train_rows:,} left for training")
    if data.left_out_rows > MANY * data.rows_read:
        lines.append(f"warning: {data.left_out_rows / data.rows_read:.0%} of the rows cannot be used")
    if data.cut_share(longest) > MANY:
        share = f"{data.cut_share(longest):.0%} of the rows are longer than {longest:,} tokens and lose their end"
        lines.append(f"warning: {share}. Shorten them, or choose a model with a longer context")
    if lost := data.lost_share(longest):
        lines.append(
            f"warning: {lost:.0%} of the rows are left out: their prompts alone have {longest:,} tokens or more"
        )
    return lines
