"""What the app offers: the study's untrained bases and finished runs, which run it starts with, the prompts to pick."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, first_line
from loragrid.models.model_files import prepared_entry
from loragrid.records.record import RunRecord, read_record
from loragrid.runtime.atomic_files import read_json, sha256_file
from loragrid.scoring.prompts import read_prompts
from loragrid.scoring.subjects import check_adapter
from loragrid.study.grid import Cell, scientific
from loragrid.study.sections import ModelEntry
from loragrid.study.study_file import Study
from loragrid.study.winner import cells_with_winner

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Subject:
    """A model that can be asked: `adapter` is None for an untrained base; `model` is a key of `Catalogue.models`."""

    name: str
    label: str
    model: str
    adapter: str | None


@dataclass(frozen=True)
class Catalogue:
    """`models`: key → entry as in the study file; `start`: name of the tuned subject that the app opens with; `prompts`:
    (label, text) to pick from; `taught`: whether the models were taught the demo's plans only; `report`: its page."""

    title: str
    models: Mapping[str, ModelEntry]
    subjects: tuple[Subject, ...]
    start: str
    prompts: tuple[tuple[str, str], ...]
    taught: bool
    threads: int
    report: str | None

    def subject(self, name: str) -> Subject:
        """The subject of that name; another one is a `UserError`."""
        for subject in self.subjects:
            if subject.name == name:
                return subject
        raise UserError(f"the app has no model {name!r}: take one of {', '.join(s.name for s in self.subjects)}")

    def base_of(self, subject: Subject) -> Subject:
        """The untrained base that `subject` was tuned from."""
        return next(s for s in self.subjects if s.adapter is None and s.model == subject.model)


def read_catalogue(
    study: Study, *, results: Path, report: Path, run: str | None, adapter: str | None, model: str | None
) -> Catalogue:
    """The catalogue of a study: `run` or `adapter` (a folder or hub id, with its base's key `model`) to start with,
    without either the best run of the comparison."""
    untrained = [Subject(name, f"{key}, untrained", key, None) for name, key in study.bases.items()]
    tuned = finished_runs(study, results)
    if adapter is not None:
        tuned.append(subject_of_adapter(study.models, adapter, model))
        known = {subject.model for subject in untrained}
        untrained += [Subject(f"base-{key}", f"{key}, untrained", key, None) for key in {tuned[-1].model} - known]
        start = tuned[-1].name
    elif run is not None:
        start = _finished(study, results, run, tuned)
    else:
        start = best_run(results, tuned)
    qualitative = study.scoring.qualitative
    return Catalogue(
        title=study.title,
        models={subject.model: _entry(study, subject.model, results) for subject in untrained},
        subjects=(*untrained, *tuned),
        start=start,
        prompts=tuple((f"{p.id}: {p.prompt}", p.prompt) for p in read_prompts(Path(qualitative)))
        if qualitative
        else (),
        taught=study.data.source.generator == "running_plans",
        threads=study.scoring.threads,
        report=str(report) if report.is_file() else None,
    )


def _entry(study: Study, model: str, results: Path) -> ModelEntry:
    """The model's entry, at the commit that the study was made with if it has begun."""
    entry = study.models[model]
    folders = [results / "data" / data for data, name in study.data_sets.items() if name == model]
    made = [folder for folder in folders if (folder / "card.json").is_file()]
    return prepared_entry(entry, made[0]) if made else entry


def finished_runs(study: Study, results: Path) -> list[Subject]:
    """Every run of the study, its search's winner too, whose adapter is there and is the one that its record was written
    for, in grid order."""
    found = []
    cells = cells_with_winner(study, results)
    for cell in cells:
        folder = results / "train" / cell.run
        if (folder / "record.json").is_file():
            record = read_record(folder / "record.json", RunRecord)
            if record.status == "finished":
                check_adapter(folder / "adapter", record)
                found.append(Subject(cell.run, run_label(cell, cells), cell.model, str(folder / "adapter")))
    return found


def run_label(cell: Cell, cells: tuple[Cell, ...]) -> str:
    """A run in the words of its settings; its seed only where the study has several."""
    parts = [
        f"search winner: {cell.model}" if "search" in cell.departs else cell.model,
        f"lr {scientific(cell.learning_rate)}",
        f"rank {cell.rank}",
        f"{cell.batch[0]}×{cell.batch[1]}",
    ]
    return ", ".join([*parts, f"seed {cell.seed}"] if len({other.seed for other in cells}) > 1 else parts)


def best_run(results: Path, tuned: list[Subject]) -> str:
    """The run with the largest gain on the study's target, one that is better than its base and not one that the
    comparison says not to ship, where there is such a run; of a study not yet compared, the first finished run, which is
    the base case."""
    names = [subject.name for subject in tuned]
    if not names:
        raise UserError(f"{results} holds no finished run to use: run `make study` first, or give --adapter")
    summary = results / "compare" / "compare.json"
    rows = [row for row in read_json(summary)["trade_offs"] if row["run"] in names] if summary.is_file() else []
    if not rows:
        return names[0]
    return max(rows, key=lambda row: (row["ship"] != "don't ship", row["gain_verdict"] == "better", row["gain"]))["run"]


def _finished(study: Study, results: Path, run: str, tuned: list[Subject]) -> str:
    if run not in [subject.name for subject in tuned]:
        study.cell(run)
        raise UserError(f"run {run} has no finished adapter in {results / 'train' / run}: run the study first")
    return run


def subject_of_adapter(models: Mapping[str, ModelEntry], adapter: str, model: str | None) -> Subject:
    """A LoRA adapter from a local folder or the hub (`owner/name` or `owner/name@revision`), on the study's `model`;
    without one, on the model that the adapter names as its base."""
    folder = Path(adapter) if Path(adapter).is_dir() else _fetch(adapter)
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            raise UserError(f"adapter {adapter} has no {name}: give a PEFT adapter (pickled weights are never loaded)")
    config = read_json(folder / "adapter_config.json")
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise UserError(f"adapter {adapter} is no LoRA adapter (peft_type in adapter_config.json): give one")
    key = model if model is not None else _named_base(models, config.get("base_model_name_or_path"), adapter)
    if key not in models:
        raise UserError(f"--model {key} is no model of the study: take one of {', '.join(models)}")
    digest = sha256_file(folder / "adapter_model.safetensors")[:8]
    return Subject(f"adapter-{digest}", f"{key}, adapter {adapter.rstrip('/').split('/')[-1]}", key, str(folder))


def _named_base(models: Mapping[str, ModelEntry], base: Any, adapter: str) -> str:
    """The key of the model that an adapter's configuration names, by hub id or by the folder's name."""
    wanted = str(base or "").rstrip("/")
    for key, entry in models.items():
        if wanted and wanted in (entry.hub, entry.path, key):
            return key
    named = [
        key for key, entry in models.items() if entry.folder is not None and entry.folder.name == Path(wanted).name
    ]
    if len(named) == 1:
        return named[0]
    raise UserError(
        f"adapter {adapter} names {wanted or 'no model'} as its base, which the study does not have: "
        f"say which it belongs to with --model, one of {', '.join(models)}"
    )


def _fetch(adapter: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = adapter.partition("@")
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=ADAPTER_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"adapter {adapter} is no folder and cannot be had from the hub ({first_line(error)})"
        ) from None


def to_json(catalogue: Catalogue) -> str:
    """The catalogue as JSON, for a copy of the app that goes without its study."""
    return json.dumps(asdict(catalogue), indent=2, ensure_ascii=False) + "\n"


def from_json(path: Path) -> Catalogue:
    """A catalogue written by `to_json`; relative paths in it are looked up beside the file."""
    value = read_json(path)
    here = path.resolve().parent
    models = {key: _beside(here, entry) for key, entry in value["models"].items()}
    subjects = [s | {"adapter": str(here / s["adapter"]) if s["adapter"] else None} for s in value["subjects"]]
    return Catalogue(
        **value
        | {
            "models": models,
            "subjects": tuple(Subject(**subject) for subject in subjects),
            "prompts": tuple(map(tuple, value["prompts"])),
            "report": str(here / value["report"]) if value["report"] else None,
        }
    )


def _beside(folder: Path, entry: dict[str, Any]) -> ModelEntry:
    """A model entry whose relative paths are looked up in `folder`."""
    paths = {key: str(folder / entry[key]) for key in ("path", "chat_template") if entry[key]}
    return ModelEntry(**entry | paths)
