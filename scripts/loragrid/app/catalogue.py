"""Everything that the app takes from a study: models, subjects, the starting run and the rephrased prompts."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from loragrid.app.subjects import (
    AppModel,
    adopted_subjects,
    finished_cells,
    merged_entry,
    run_label,
    subject_of_adapter,
)
from loragrid.errors import UserError
from loragrid.models.adapter_files import trained_folder
from loragrid.models.model_files import prepared_entry
from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import read_json
from loragrid.scoring.prompts import read_prompts
from loragrid.study.grid import Cell, base_case_on
from loragrid.study.search.winner import cells_with_winner
from loragrid.study.sections import ModelEntry
from loragrid.study.study_file import Study


@dataclass(frozen=True)
class Catalogue:
    """Everything that the app takes from a study.

    `models`: key → entry as in the study file, with a precision; a run of all weights has an entry of its own. `start`:
    name of the tuned subject that the app opens with. `prompts`: (label, text) pairs. `taught`: whether the models were
    trained on the demo's running plans. `plans`: whether the study is about running plans. `report`: path or None.
    """

    title: str
    models: Mapping[str, ModelEntry]
    subjects: tuple[AppModel, ...]
    start: str
    prompts: tuple[tuple[str, str], ...]
    taught: bool
    plans: bool
    threads: int
    report: str | None

    def subject(self, name: str) -> AppModel:
        """The subject called `name`. Raises `UserError` for an unknown name."""
        for subject in self.subjects:
            if subject.name == name:
                return subject
        known = ", ".join(subject.name for subject in self.subjects)
        raise UserError(f"model: unknown to the app ({name}). Fix: choose one of {known}.")

    def base_of(self, subject: AppModel) -> AppModel:
        """The untrained base that `subject` was tuned from."""
        return self.subject(subject.base)


def read_catalogue(
    study: Study, *, results: Path, report: Path, run: str | None, adapter: str | None, model: str | None
) -> Catalogue:
    """The catalogue of a study. It starts with `run` or `adapter` (a folder or hub id; `model` is its base's key), or
    with the comparison's best run if both are None. Raises `UserError` if there is nothing to start with."""
    cells = cells_with_winner(study, results)
    bases = {cell.base: cell for cell in (*cells, *study.bases.values())}
    if adapter is not None:
        given = subject_of_adapter(study, adapter, model)
        # The adapter may belong to a model of the study that no run uses.
        bases.setdefault(given.base, base_case_on(study.yaml, given.model))
    keys = _model_keys(bases)
    models = {keys[base]: _base_entry(study, cell, results) for base, cell in bases.items()}
    untrained = [AppModel(base, f"{keys[base]}, not fine-tuned", keys[base], None, base) for base in bases]
    tuned = []
    for cell in finished_cells(cells, results):
        weights = trained_folder(results / "train" / cell.run)
        subject = AppModel(cell.run, run_label(cell), keys[cell.base], str(weights), cell.base)
        if cell.settings.method == "full":
            models[cell.run] = replace(models[keys[cell.base]], path=str(weights), hub=None, revision=None)
            subject = replace(subject, model=cell.run, adapter=None)
        tuned.append(subject)
    tuned += [replace(subject, model=keys[subject.base]) for subject in adopted_subjects(study)]
    if adapter is not None:
        tuned.append(replace(given, model=keys[given.base]))
        if given.adapter is None:
            models[given.name] = merged_entry(models[keys[given.base]], Path(adapter))
            tuned[-1] = replace(given, model=given.name)
        start = tuned[-1].name
    elif run is not None:
        start = _finished_run(study, results, run, tuned)
    else:
        start = best_run(results, tuned, study=study_word(study))
    prompts = read_prompts(Path(study.scoring.qualitative)) if study.scoring.qualitative else []
    sources = [data.source for data in study.data.values() if data.source is not None]
    taught = any(source.generator == "running_plans" for source in sources)
    return Catalogue(
        title=study.title,
        models=models,
        subjects=(*untrained, *tuned),
        start=start,
        prompts=tuple((f"{prompt.id}: {prompt.prompt}", prompt.prompt) for prompt in prompts),
        taught=taught,
        plans=taught or any(Path(task).stem.startswith("running_plan") for task in study.scoring.tasks),
        threads=study.scoring.threads,
        report=str(report) if report.is_file() else None,
    )


def study_word(study: Study) -> str:
    """The study as a word of a command line: its name if it is one of config/studies, else its file."""
    if study.path.parent == ROOT / "config" / "studies":
        return study.path.stem
    return shlex.quote(str(study.path))


def _base_entry(study: Study, cell: Cell, results: Path) -> ModelEntry:
    """The base of a cell, pinned to the commit of a prepared data set if there is one."""
    entry = study.base_entry(cell)
    for data, other in study.data_sets.items():
        folder = results / "data" / data
        if other.model == cell.model and (folder / "card.json").is_file():
            return prepared_entry(entry, folder)
    return entry


def _model_keys(bases: Mapping[str, Cell]) -> dict[str, str]:
    """Base id → the model's key, with its precision if the study has the model in several."""
    keys = {}
    for base, cell in bases.items():
        precisions = {other.settings.precision for other in bases.values() if other.model == cell.model}
        keys[base] = f"{cell.model}-{cell.settings.precision}" if len(precisions) > 1 else cell.model
    return keys


def best_run(results: Path, tuned: list[AppModel], *, study: str) -> str:
    """The run with the largest gain on the study's target, preferring runs that may be shipped and beat their base.

    Before a comparison it is the first finished run, the base case. Raises `UserError` without a finished run, naming
    the command that makes one; `study`: as on the command line.
    """
    names = [subject.name for subject in tuned]
    if not names:
        raise UserError(
            f"{results}: no finished run. Fix: run `snakemake --cores 1 --config study={study}` first, "
            "or give --adapter."
        )
    summary = results / "compare" / "compare.json"
    trade_offs = read_json(summary)["trade_offs"] if summary.is_file() else []
    # An older comparison may hold runs whose adapters are gone.
    rows = [row for row in trade_offs if row["run"] in names]
    if not rows:
        return names[0]
    best = max(rows, key=lambda row: (row["ship"] != "don't ship", row["gain_verdict"] == "better", row["gain"]))
    return best["run"]


def _finished_run(study: Study, results: Path, run: str, tuned: list[AppModel]) -> str:
    if run not in [subject.name for subject in tuned]:
        study.cell(run)
        raise UserError(f"{results / 'train' / run}: no finished weights of run {run}. Fix: run the study first.")
    return run


def to_json(catalogue: Catalogue) -> str:
    """The catalogue as JSON, for a copy of the app without its study."""
    return json.dumps(asdict(catalogue), indent=2, ensure_ascii=False) + "\n"


def from_json(path: Path) -> Catalogue:
    """The catalogue in a file written by `to_json`; relative paths are resolved beside the file."""
    value = read_json(path)
    folder = path.resolve().parent
    models = {
        key: ModelEntry(**_resolved(entry, folder, "path", "chat_template")) for key, entry in value["models"].items()
    }
    subjects = tuple(AppModel(**_resolved(subject, folder, "adapter")) for subject in value["subjects"])
    prompts = tuple(map(tuple, value["prompts"]))
    value = _resolved(value, folder, "report")
    return Catalogue(**value | {"models": models, "subjects": subjects, "prompts": prompts})


def _resolved(values: dict[str, Any], folder: Path, *keys: str) -> dict[str, Any]:
    """`values` with the paths under `keys` resolved in `folder`; empty ones stay."""
    return values | {key: str(folder / values[key]) for key in keys if values[key]}
