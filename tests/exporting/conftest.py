"""A toy study with finished runs, and exports whose forms are measured without a process for each."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import export
from loragrid.exporting.exported_run import ExportedRun, find_run
from loragrid.exporting.measuring import Form, Job, measure, request_of
from loragrid.study.study_file import Study
from tests.fixtures.score_toys import finish, make_study, write_adapter, write_data

AXES = {"grid": {"axes": {"method": ["lora", "dora", "full"]}}}


@dataclasses.dataclass(frozen=True)
class Finished:
    """A study whose runs are finished, by method, and its results."""

    study: Study
    results: Path
    runs: dict[str, str]

    def run(self, method: str = "lora") -> ExportedRun:
        return find_run(self.study, self.results, self.runs[method])

    def export(self, method: str = "lora", **request: Any) -> Path:
        wanted = export.ExportRequest(**request)
        return export.export_run(study=self.study, results=self.results, name=self.runs[method], request=wanted)


def finish_study(folder: Path, model: Path, **sections: Any) -> Finished:
    """Finished runs of several methods with random weights; the records have the losses that the weights have."""
    study = make_study(folder, model, **AXES | sections)
    results, runs = folder / "results" / study.name, {}
    for seed, cell in enumerate(study.cells):
        method, out = cell.settings.method, results / "train" / cell.run
        runs[method] = cell.run
        data = results / "data" / cell.data
        data.mkdir(parents=True, exist_ok=True)
        write_data(data)
        (data / "card.json").write_text('{"model_commit": null}')
        if method == "full":
            write_moved_model(model, out / "model")
        else:
            write_adapter(model, out / "adapter", seed=seed, use_dora=method == "dora", lora_alpha=4)
        loss = measured_loss(study, cell, out, data)
        # Some fields are empty in the toys' records.
        known = {"base_source": str(model), "base_sha256": "0" * 64, "final_heldout_loss": loss}
        finish(study, cell, out, settings=cell.identity, **known)
    return Finished(study, results, runs)


def write_moved_model(model: Path, folder: Path) -> None:
    """A whole model whose weights differ a little from `model`'s."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(model)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.01 * torch.randn_like(weight)
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)


def measured_loss(study: Study, cell: Any, out: Path, data: Path) -> float:
    """The held-out loss of a run, as training would have recorded it."""
    from loragrid.models.adapter_files import trained_folder

    trained = trained_folder(out)
    kind = "whole" if trained.name == "model" else "adapter"
    job = Job(heldout=data / "heldout.parquet", questions=[], batch_size=4, threads=1)
    return measure(request_of(Form(kind=kind, folder=trained, entry=study.base_entry(cell)), job)).loss


@pytest.fixture(scope="session")
def model(root: Path) -> Path:
    """A model of the demo: one with random weights has near ties everywhere, which rounding turns."""
    return root / "resources" / "models" / "llama-s"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Finished:
    return finish_study(tmp_path_factory.mktemp("finished"), model)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[Form]:
    """Forms are measured in this process, whose libraries are imported; returns those that were."""
    measured = []

    def measure_here(form: Form, job: Job) -> Any:
        measured.append(form)
        return measure(request_of(form, job))

    monkeypatch.setattr(export, "measure_form", measure_here)
    return measured
