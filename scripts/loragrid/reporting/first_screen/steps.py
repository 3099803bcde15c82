"""The lines under the cards: what to do next, which run to take, and how."""

import shlex
from dataclasses import dataclass
from typing import Any

from loragrid.comparing.trade_off import fit_to_ship
from loragrid.formatting import duration, visible
from loragrid.paths import ROOT
from loragrid.reporting.compared_study import ComparedStudy
from loragrid.reporting.next_section import read_next, sure_share
from loragrid.reporting.page import Material
from loragrid.reporting.sentences.findings import start
from loragrid.statistics.paired_statistics import BETTER
from loragrid.study.study_file import Study

LONGEST_TEXT = 110  # characters of an option or a question in one line


@dataclass(frozen=True)
class Step:
    """A line: what it is about, its text, and a command or an empty string."""

    name: str
    text: str
    command: str = ""


def steps(material: Material) -> list[Step]:
    """What to do next, if the stage `next` has run, which run to take, and how."""
    take = run_to_take(material.compared, material.study)
    found = [next_step(material), take, export_step(take, material.study)]
    return [step for step in found if step is not None]


def study_option(study: Study) -> str:
    """How a command names the study: its name, or the path of a file elsewhere."""
    path = study.path
    if path.parent == ROOT / "config" / "studies":
        return shlex.quote(visible(path.stem))
    return shlex.quote(visible(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name)))


def next_step(material: Material) -> Step | None:
    """The cheapest step by hours per closed question; runs without a score come first."""
    study = f"--config study={study_option(material.study)}"
    statuses = material.compared.summary["statuses"]
    unfinished = sum(statuses.get(status, 0) for status in ("missing", "paused", "trained"))
    if unfinished:
        text = f"Finish the study: {unfinished} of {sum(statuses.values())} runs are not scored yet."
        return Step("Do next", text, f"snakemake --cores 1 {study}")
    found = read_next(material)
    if found is None:
        return None
    options = {option["id"]: option for option in found["options"]}
    closable = [question for question in found["questions"] if question["cheapest"] is not None]
    if not found["questions"]:
        return Step("Do next", "Nothing is open: every difference is proved or within the margin.")
    if not closable:
        count = len(found["questions"])
        return Step("Do next", f"No single step is likely to close one of the {count} open questions.")
    question = min(closable, key=lambda one: options[one["cheapest"]]["hours_per_closed"])
    return Step("Do next", _advice(question, options[question["cheapest"]]), f"snakemake --cores 1 next {study}")


def _advice(question: dict[str, Any], option: dict[str, Any]) -> str:
    """2 more seeds for llama-m, 2 min: settles “Does llama-m keep …?” with a probability of 45%."""
    text, asked = (visible(found["text"], LONGEST_TEXT) for found in (option, question))
    chance = sure_share(option["closes"][question["name"]])
    return f"{start(text)}, {duration(3600 * option['hours'])}: settles “{asked}” with a probability of {chance}."


def run_to_take(compared: ComparedStudy, study: Study) -> Step | None:
    """The run of the setting that is fit to ship with the surest gain; that there is none, if so."""
    trained = [row for row in compared.summary["trade_offs"] if row["run"] not in compared.adopted]
    fit = fit_to_ship(trained, compared.adopted)
    if not trained:
        return None
    if not fit:
        gained = [row for row in trained if row["gain_verdict"] == BETTER]
        if gained and all(row["kept"] is None for row in gained):
            text = "None yet: what training forgot was not measured. Add tasks to scoring.retention in the study file."
            return Step("Run to take", text)
        return Step("Run to take", "None: no setting is shown to gain and to keep what its untrained base could do.")
    run = visible(fit[0]["run"])
    label = visible(compared.setting_labels[fit[0]["run"]], 60)
    arguments = f"--study {study_option(study)} --run {shlex.quote(run)}"
    return Step("Run to take", f"{start(label)}, the surest gain of those fit to ship.", f'make app ARGS="{arguments}"')


def export_step(take: Step | None, study: Study) -> Step | None:
    """How to export that run, if there is one to take."""
    if take is None or not take.command:
        return None
    text = "As adapter, merged model and card, each form measured beside the run."
    return Step("Export it", text, f"snakemake --cores 1 export --config study={study_option(study)}")
