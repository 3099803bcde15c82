"""The merged model in vLLM, on a stand-in with its interface: measured where it is installed, a note where it fails."""

import json
from pathlib import Path
from typing import Any

import pytest

import export
from loragrid.errors import Failed
from loragrid.exporting.vllm_measuring import vllm_is_installed
from loragrid.scoring.vllm_engine import process
from tests.exporting.conftest import Finished
from tests.fixtures.vllm_engine import engine_starts, make_interpreter


def test_what_vllm_answers_is_compared_too(
    finished: Finished, in_process: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(process.VARIABLE, str(tmp_path / "nothing"))
    assert not vllm_is_installed()
    python = make_interpreter(tmp_path / "vllm")
    monkeypatch.setenv(process.VARIABLE, str(python))
    out = finished.export("lora", page=tmp_path / "no-page")
    record = json.loads((out / "export.json").read_text())
    assert [one["form"] for one in record["parities"]] == ["adapter", "merged in float16", "vllm"]
    assert record["parities"][2]["holds"] and record["parities"][2]["arithmetic"] == "float16 in vLLM"
    assert engine_starts(python) == 1


def test_a_vllm_that_does_not_run_here_is_a_note(
    finished: Finished, in_process: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = export.measure_form

    def without_vllm(form: Any, job: Any) -> Any:
        if form.kind == "vllm":
            raise Failed("no kernel for this card")
        return measure(form, job)

    monkeypatch.setattr(export, "measure_form", without_vllm)
    monkeypatch.setattr(export, "vllm_is_installed", lambda: True)
    out = finished.export("full", ollama=True)
    note = "The merged model was not measured in vLLM: no kernel for this card."
    assert note in (out / "README.md").read_text() and note in json.loads((out / "export.json").read_text())["notes"]
