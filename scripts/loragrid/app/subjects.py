"""The app's subjects: finished runs, adopted adapters, and an adapter from a folder or the hub."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, one_line, print_line
from loragrid.formatting import visible
from loragrid.models.adapter_files import ADAPTER_WEIGHTS, trained_folder, trained_sha256
from loragrid.models.adapter_shapes import loaded_shapes
from loragrid.models.adopted_adapters import adapter_folder, check_adapter_folder, fetch_adapter
from loragrid.models.base_checks.values import check_finite
from loragrid.models.model_files import check_model_folder, resolve_folder
from loragrid.records.record import RunRecord, read_record
from loragrid.records.seal import check_sealed
from loragrid.runtime.atomic_files import read_json
from loragrid.scoring.subjects import check_weights
from loragrid.setting_texts import axis_name, axis_value
from loragrid.study.grid import ARMS, SEARCHED, Cell, base_case_on
from loragrid.study.run_names import value_text
from loragrid.study.sections import ModelEntry
from loragrid.study.study_file import Study


@dataclass(frozen=True)
class AppModel:
    """A base, a run or an adapter from elsewhere that can answer.

    `model`: key of `Catalogue.models`, of the base or of the run's own whole model; `adapter`: None without one;
    `base`: name of the untrained base.
    """

    name: str
    label: str
    model: str
    adapter: str | None
    base: str

    @property
    def tuned(self) -> bool:
        """Whether it is not an untrained base."""
        return self.name != self.base


def finished_cells(cells: Sequence[Cell], results: Path) -> list[Cell]:
    """The cells whose runs are finished.

    Raises `UserError` for weights that are missing or differ from their record.
    """
    found = []
    for cell in cells:
        folder = results / "train" / cell.run
        if (folder / "record.json").is_file():
            record = read_record(folder / "record.json", RunRecord)
            if record.status == "finished":
                # Answers of weights that changed since their scoring would contradict the report.
                check_weights(trained_folder(folder), record)
                found.append(cell)
    return found


def adopted_subjects(study: Study) -> list[AppModel]:
    """The adopted adapters that can be used, by the keys of their models; prints why one cannot."""
    found = []
    for adopted in study.adopted.values():
        try:
            folder, _ = adapter_folder(adopted.key, adopted.entry)
            shapes = loaded_shapes(resolve_folder(study.models[adopted.entry.model])[0])
            check_adapter_folder(folder, f"adopt.{adopted.key}", shapes)
            check_finite(folder / ADAPTER_WEIGHTS)
        except UserError as error:
            print_line(f"{adopted.subject} is left out: {one_line(str(error))}")
            continue
        label = f"{adopted.cell.model}, adopted {adopted.key}"
        found.append(AppModel(adopted.subject, label, adopted.cell.model, str(folder), adopted.cell.base))
    return found


def run_label(cell: Cell) -> str:
    """A run named by its model and by what departs from the base case."""
    parts = [visible(cell.model, 40)]
    for name, value in cell.departs.items():
        text = axis_value(name, value_text(value))
        if name == SEARCHED:
            parts.append("search winner")
        elif name in (*ARMS, "method"):
            parts.append(text)
        elif name != "model":
            parts.append(f"{axis_name(name)} {text}")
    return ", ".join(parts) if len(parts) > 1 else f"{parts[0]}, base case"


def subject_of_adapter(study: Study, adapter: str, model: str | None) -> AppModel:
    """An adapter from a local folder or the hub (`owner/name` or `owner/name@revision`) on the study's `model`, or on
    the model that the adapter names as its base if `model` is None; its `model` is that model's key.

    The folder may also be the merged model of an export, which then has no `adapter`. Raises `UserError` for what
    cannot be used.
    """
    folder = Path(adapter)
    if (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        return _merged_subject(study, folder, model)
    if not folder.is_dir():
        name, _, revision = adapter.partition("@")
        folder = fetch_adapter(name, revision or None, where="--adapter")
    config = check_adapter_folder(folder, f"adapter {adapter}", None)
    key = model
    if key is None:
        key = _named_base(study.models, config.get("base_model_name_or_path"), adapter)
    if key not in study.models:
        raise UserError(f"--model: not a model of the study ({key}). Fix: give one of {', '.join(study.models)}.")
    check_adapter_folder(folder, f"adapter {adapter}", loaded_shapes(resolve_folder(study.models[key])[0]))
    check_finite(folder / ADAPTER_WEIGHTS)
    # Named by content: two adapters with the same folder name stay apart.
    digest = trained_sha256(folder)[:8]
    label = f"{key}, adapter {adapter.rstrip('/').split('/')[-1]}"
    return AppModel(f"adapter-{digest}", label, key, str(folder), base_case_on(study.yaml, key).base)


def _merged_subject(study: Study, folder: Path, model: str | None) -> AppModel:
    """The merged model in `folder`, whose base is `model` or what the record of its export says."""
    check_model_folder(folder)
    check_sealed(folder)
    record, key = folder.parent / "export.json", model
    if key is None and record.is_file():
        key = read_json(record)["model"]
    if key not in study.models:
        raise UserError(
            f"--adapter {folder}: a whole model, whose base is not known to the study ({key}). "
            f"Fix: name the base with --model, one of {', '.join(study.models)}."
        )
    name = f"merged-{trained_sha256(folder)[:8]}"
    label = f"{key}, merged {folder.resolve().parent.name}"
    return AppModel(name, label, key, None, base_case_on(study.yaml, key).base)


def merged_entry(base: ModelEntry, folder: Path) -> ModelEntry:
    """The entry of a merged model, which has its own chat template and never 4 bits."""
    precision = "16bit" if base.precision == "4bit" else base.precision
    return replace(base, path=str(folder), hub=None, revision=None, chat_template=None, precision=precision)


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
