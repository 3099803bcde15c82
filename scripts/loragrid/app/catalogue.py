"""The app's models and prompts: untrained bases, finished runs, the starting run and the rephrased prompts."""

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
class AppModel:
    """A run or an untrained base that can answer. `model`: key of `Catalogue.models`; `adapter`: None for a base."""

    name: str
    label: str
    model: str
    adapter: str | None


@dataclass(frozen=True)
class Catalogue:
    """Everything that the app takes from a study.

    `models`: key → entry as in the study file. `start`: name of the tuned subject that the app opens with. `prompts`:
    (label, text) pairs. `taught`: whether the models were trained on the demo's running plans. `report`: path or None.
    """

    title: str
    models: Mapping[str, ModelEntry]
    subjects: tuple[AppModel, ...]
    start: str
    prompts: tuple[tuple[str, str], ...]
    taught: bool
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
        return next(base for base in self.subjects if base.adapter is None and base.model == subject.model)


def read_catalogue(
    study: Study, *, results: Path, report: Path, run: str | None, adapter: str | None, model: str | None
) -> Catalogue:
    """The catalogue of a study. It starts with `run` or `adapter` (a folder or hub id; `model` is its base's key), or
    with the comparison's best run if both are None. Raises `UserError` if there is nothing to start with."""
    untrained = [AppModel(name, f"{key}, untrained", key, None) for name, key in study.bases.items()]
    tuned = finished_runs(study, results)
    if adapter is not None:
        tuned.append(subject_of_adapter(study.models, adapter, model))
        key = tuned[-1].model
        if key not in {subject.model for subject in untrained}:
            # The adapter may belong to a model of the study that no run uses.
            untrained.append(AppModel(f"base-{key}", f"{key}, untrained", key, None))
        start = tuned[-1].name
    elif run is not None:
        start = _finished_run(study, results, run, tuned)
    else:
        start = best_run(results, tuned)
    prompts = read_prompts(Path(study.scoring.qualitative)) if study.scoring.qualitative else []
    return Catalogue(
        title=study.title,
        models={subject.model: _model_entry(study, subject.model, results) for subject in untrained},
        subjects=(*untrained, *tuned),
        start=start,
        prompts=tuple((f"{prompt.id}: {prompt.prompt}", prompt.prompt) for prompt in prompts),
        taught=study.data.source.generator == "running_plans",
        threads=study.scoring.threads,
        report=str(report) if report.is_file() else None,
    )


def _model_entry(study: Study, model: str, results: Path) -> ModelEntry:
    """The model's entry, pinned to the commit of the prepared data set if there is one."""
    entry = study.models[model]
    folders = [results / "data" / data for data, name in study.data_sets.items() if name == model]
    for folder in folders:
        if (folder / "card.json").is_file():
            return prepared_entry(entry, folder)
    return entry


def finished_runs(study: Study, results: Path) -> list[AppModel]:
    """The finished runs of the study and of its search's winner, in grid order. Raises `UserError` for an adapter that
    is missing or differs from its record."""
    found = []
    cells = cells_with_winner(study, results)
    for cell in cells:
        folder = results / "train" / cell.run
        if (folder / "record.json").is_file():
            record = read_record(folder / "record.json", RunRecord)
            if record.status == "finished":
                # Answers of an adapter that changed since its scoring would contradict the report.
                check_adapter(folder / "adapter", record)
                found.append(AppModel(cell.run, run_label(cell, cells), cell.model, str(folder / "adapter")))
    return found


def run_label(cell: Cell, cells: tuple[Cell, ...]) -> str:
    """A run named by its settings; the seed only if the study has several."""
    model = f"search winner: {cell.model}" if "search" in cell.departs else cell.model
    parts = [
        model,
        f"lr {scientific(cell.learning_rate)}",
        f"rank {cell.rank}",
        f"{cell.batch[0]}×{cell.batch[1]}",
    ]
    if len({other.seed for other in cells}) > 1:
        parts.append(f"seed {cell.seed}")
    return ", ".join(parts)


def best_run(results: Path, tuned: list[AppModel]) -> str:
    """The run with the largest gain on the study's target, preferring runs that may be shipped and beat their base.

    Before a comparison it is the first finished run, the base case. Raises `UserError` without a finished run.
    """
    names = [subject.name for subject in tuned]
    if not names:
        raise UserError(f"{results}: no finished run. Fix: run `make study` first, or give --adapter.")
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
        raise UserError(f"{results / 'train' / run}: no finished adapter of run {run}. Fix: run the study first.")
    return run


def subject_of_adapter(models: Mapping[str, ModelEntry], adapter: str, model: str | None) -> AppModel:
    """A LoRA adapter from a local folder or the hub (`owner/name` or `owner/name@revision`) on the study's `model`, or
    on the model that the adapter names as its base if `model` is None.

    Raises `UserError` for an adapter that cannot be used.
    """
    folder = Path(adapter)
    if not folder.is_dir():
        folder = _download(adapter)
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            raise UserError(
                f"adapter {adapter}: no {name}. Fix: give a PEFT adapter (pickled weights are never loaded)."
            )
    config = read_json(folder / "adapter_config.json")
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise UserError(f"adapter {adapter}: not LoRA, by peft_type in adapter_config.json. Fix: give a LoRA adapter.")
    key = model
    if key is None:
        key = _named_base(models, config.get("base_model_name_or_path"), adapter)
    if key not in models:
        raise UserError(f"--model: not a model of the study ({key}). Fix: give one of {', '.join(models)}.")
    # Named by content: two adapters with the same folder name stay apart.
    digest = sha256_file(folder / "adapter_model.safetensors")[:8]
    return AppModel(f"adapter-{digest}", f"{key}, adapter {adapter.rstrip('/').split('/')[-1]}", key, str(folder))


def _named_base(models: Mapping[str, ModelEntry], base: Any, adapter: str) -> str:
    """The key of the model that an adapter's configuration names, by hub id or by the folder's name."""
    wanted = str(base or "").rstrip("/")
    for key, entry in models.items():
        if wanted and wanted in (entry.hub, entry.path, key):
            return key
    # An adapter trained elsewhere names another path, but usually the same folder name.
    folders = {key: entry.folder for key, entry in models.items() if entry.folder is not None}
    named = [key for key, folder in folders.items() if folder.name == Path(wanted).name]
    if len(named) == 1:
        return named[0]
    raise UserError(
        f"adapter {adapter}: the study has no model like its base ({wanted or 'none named'}). "
        f"Fix: name the base with --model, one of {', '.join(models)}."
    )


def _download(adapter: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = adapter.partition("@")
    try:
        # Only these two files: a repository may also hold pickles or a whole base model.
        return Path(huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=ADAPTER_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"adapter {adapter}: no such folder, and the hub does not provide it ({first_line(error)}). "
            "Fix: check the name and the connection."
        ) from None


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
