"""The study that is proposed: its settings and the reason of each, and the file that says so."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from loragrid.paths import ROOT
from loragrid.study.study_file import Study, load_study


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A study of one model on one data set that compares learning rates.

    `data` and `model`: key and entry of the study file; `data_note` and `model_note`: what was found in them. `run`:
    further settings of the base case, in the order of the file. `notes`: setting → why it has its value. `rates_asked`:
    the user named the learning rates. `heldout_rows` are those of the study, `train_rows` what is left; `row_tokens`:
    the mean of a row.
    """

    name: str
    command: str
    left_out: str
    data: tuple[str, Mapping[str, Any]]
    data_name: str
    data_note: str
    model: tuple[str, Mapping[str, Any]]
    model_note: str
    heldout_rows: int
    learning_rates: tuple[float, ...]
    rates_asked: bool
    seeds: tuple[int, ...]
    run: Mapping[str, Any]
    retention: tuple[str, ...]
    limit: int | None
    card: str | None
    train_rows: int
    row_tokens: float
    cores: int = 1
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The question that the study answers."""
        if len(self.learning_rates) == 1:
            return f"Does fine-tuning {self.model[0]} on {self.data_name} help?"
        return f"Which learning rate suits {self.model[0]} on {self.data_name}?"

    @property
    def base_rate(self) -> float:
        """The learning rate of the base case: the middle one."""
        return self.learning_rates[(len(self.learning_rates) - 1) // 2]

    @property
    def rows_per_update(self) -> int:
        """Rows that an update sees."""
        rows, accumulation = self.run["batch"]
        return rows * accumulation

    def study(self) -> Study:
        """The study of the proposed file, with all checks of a study file."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{self.name}.yaml"
            file.write_text(study_text(self), encoding="utf-8")
            return load_study(str(file))


def study_text(proposal: Proposal) -> str:
    """The study file of a proposal, with a comment at each setting that was chosen for these data and this model."""
    lines = [
        f"# Proposed by {_comment(proposal.command)}. Every line may be changed.",
        "#",
        f"#   snakemake --cores {proposal.cores} plan --config study={proposal.name}    memory and hours",
        f"#   snakemake --cores {proposal.cores} --config study={proposal.name}         run it, or continue it",
        "#",
        "# What is not written has the default of config/README.md; `plan` lists it with its reason.",
        f"title: {_yaml(proposal.title)}",
    ]
    if proposal.left_out:
        lines.append(f"left_out: {_yaml(proposal.left_out)}")
    return "\n".join([*lines, *_inputs(proposal), *_runs(proposal), *_scoring(proposal), *_plan(proposal), ""])


def _inputs(proposal: Proposal) -> list[str]:
    data, model = proposal.data, proposal.model
    return [
        "",
        *_comments(proposal.data_note),
        "data:",
        f"  {data[0]}: {_yaml(data[1])}",
        f"heldout: {{rows: {proposal.heldout_rows}}}{_note(proposal, 'heldout')}",
        "",
        *_comments(proposal.model_note),
        "models:",
        f"  {model[0]}: {_yaml(model[1])}",
    ]


def _runs(proposal: Proposal) -> list[str]:
    lines = ["", "base_case:", f"  learning_rate: {rate_text(proposal.base_rate)}{_note(proposal, 'learning_rate')}"]
    for name, value in proposal.run.items():
        lines.append(f"  {name}: {_yaml(value)}{_note(proposal, name)}")
    lines += ["", "grid:", "  axes:"]
    if len(proposal.learning_rates) > 1:
        rates = ", ".join(map(rate_text, proposal.learning_rates))
        lines.append(f"    learning_rate: [{rates}]{_note(proposal, 'learning_rates')}")
    return [*lines, f"    seed: {_yaml(list(proposal.seeds))}{_note(proposal, 'seeds')}"]


def _scoring(proposal: Proposal) -> list[str]:
    lines = ["", *_comments(proposal.notes.get("scoring", "")), "scoring:", "  target: [heldout_loss]"]
    lines.append(f"  retention: {_yaml(list(proposal.retention))}{_note(proposal, 'retention')}")
    if proposal.retention:
        lines.append(f"  limit: {proposal.limit}")
    if proposal.run.get("threads", 1) > 1:
        lines.append(f"  threads: {proposal.run['threads']}")
    return lines


def _plan(proposal: Proposal) -> list[str]:
    plan = {"rows": proposal.train_rows, "row_tokens": round(proposal.row_tokens, 1)}
    if proposal.card is not None:
        plan = {"card": proposal.card} | plan
    return [
        "",
        "# For hours before the data are prepared: training rows and their mean length.",
        f"plan: {_yaml(plan)}",
    ]


def rate_text(rate: float) -> str:
    """A learning rate as YAML reads it everywhere: 2.0e-4, not 2e-4."""
    mantissa, exponent = f"{rate:e}".split("e")
    digits = mantissa.rstrip("0")
    return f"{digits}0e{int(exponent)}" if digits.endswith(".") else f"{digits}e{int(exponent)}"


def _note(proposal: Proposal, name: str) -> str:
    return f"  # {_comment(proposal.notes[name])}" if name in proposal.notes else ""


def _comments(text: str) -> list[str]:
    return [f"# {_comment(line)}" for line in text.splitlines()]


def _comment(text: str) -> str:
    """Text in one line of a comment: a name in the data may hold anything."""
    return "".join(character if character.isprintable() else " " for character in text)


def _yaml(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
    return text.removesuffix("...\n").strip()


def within_project(path: Path) -> str:
    """A path for people: relative to the project if it is within."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
