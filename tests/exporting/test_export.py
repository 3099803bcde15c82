"""The export stage: what it leaves, and what it refuses to leave."""

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import export
from loragrid.errors import Failed, UserError
from loragrid.exporting import merging
from loragrid.paths import ROOT
from loragrid.records.record import RunRecord, read_record, write_record
from loragrid.records.seal import changed_files
from loragrid.runtime.secrets import texts_in
from tests.exporting.conftest import Finished

TOKEN = "hf_thisIsNoTokenButLooksLikeOne"


def files_of(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_an_export_is_measured_in_fresh_processes_and_says_so(finished: Finished, tmp_path: Path) -> None:
    """As the rule calls it; and no token of the environment is in anything that it writes or prints."""
    page = tmp_path / "report.html"
    page.write_text(f"<h1>The study</h1> {finished.run().record.base_source} {finished.study.path}")
    run, results = finished.runs["lora"], finished.results
    command = [sys.executable, export.__file__, "--study", str(finished.study.path), "--results", str(results)]
    command += ["--run", run, "--page", str(page), "--ollama", "--log", str(tmp_path / "log")]
    secrets = {"HF_TOKEN": TOKEN, "HUGGING_FACE_HUB_TOKEN": TOKEN}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | secrets)
    assert done.returncode == 0, done.stderr
    out = results / "export" / run
    assert {"adapter/adapter_model.safetensors", "adapter/README.md", "merged/model.safetensors"} < files_of(out)
    assert {"README.md", "export.json", "report.html", "ollama/Modelfile"} < files_of(out)
    record = json.loads((out / "export.json").read_text())
    assert [(one["form"], one["holds"]) for one in record["parities"]] == [
        ("adapter", True),
        ("merged in float16", True),
    ]
    assert record["merged"] == {"dtype": "float16", "merged_into": "the base in float32"}
    assert set(record["files"]) == files_of(out) - {"export.json", "sealed.json"} and changed_files(out) == []
    assert f"[{run}] merged in float16 matches the run on its training base: held-out loss " in done.stderr
    # Others can neither use nor need to know the places of the base, of the data and of the results on this machine.
    own = [str(finished.study.path.parent), finished.run().record.base_source, str(ROOT)]
    assert not [file for file in out.rglob("*") if file.is_file() and texts_in(file, own)]
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == record["base_source"] == "llama-s"
    # The page, which named two of them, says the last part of their paths.
    assert (out / "report.html").read_text() == f"<h1>The study</h1> llama-s {finished.study.path.name}"
    written = [file for file in (*out.rglob("*"), tmp_path / "log") if file.is_file()]
    assert not [file for file in written if TOKEN.encode() in file.read_bytes()] and TOKEN not in done.stderr


def test_the_same_export_again_does_nothing_and_a_damaged_one_is_made_again(
    finished: Finished, in_process: list[Any], capfd: pytest.CaptureFixture
) -> None:
    out = finished.export("dora")
    assert len(in_process) == 2
    finished.export("dora")
    assert len(in_process) == 2 and "exported before with the same code and files" in capfd.readouterr().err
    (out / "merged" / "config.json").write_text("{}")
    finished.export("dora")
    assert len(in_process) == 4 and json.loads((out / "merged" / "config.json").read_text())["model_type"] == "llama"


@pytest.fixture
def wrong_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The merge takes each adapter 1.5 times."""
    attach = merging.attach_adapter

    def attach_too_strongly(*arguments: Any) -> Any:
        model = attach(*arguments)
        for layer in merging.adapted_layers(model):
            layer.scale_layer(1.5)
        return model

    monkeypatch.setattr(merging, "attach_adapter", attach_too_strongly)


def test_a_merge_with_a_wrong_scale_is_caught(
    tmp_path: Path, model: Path, in_process: list[Any], wrong_scale: None
) -> None:
    from tests.exporting.conftest import finish_study

    broken = finish_study(tmp_path, model, grid={"axes": {"method": ["lora"]}})
    reason = r"differs from the run .*: merged in float16 \(held-out loss .* nats, at most 0.002.*\.refused\. Fix: .*accept=true"
    for _ in range(2):  # the second time it is not measured again
        with pytest.raises(Failed, match=reason):
            broken.export()
        assert [form.kind for form in in_process] == ["adapter", "merged"]
    run = broken.runs["lora"]
    refused = broken.results / "export" / f"{run}.refused"
    assert [path.name for path in refused.parent.iterdir()] == [refused.name]
    out = broken.export(accept=True)
    assert len(in_process) == 2 and [path.name for path in out.parent.iterdir()] == [run]
    assert re.search(r"^\| merged in float16 \|.*\| DIFFERS \|$", (out / "README.md").read_text(), re.MULTILINE)
    # Kept once, it is not taken for the run by a later call without the option.
    with pytest.raises(Failed, match="differs from the run"):
        broken.export()


def test_an_adapter_whose_alpha_was_changed_is_not_what_the_study_measured(
    finished: Finished, in_process: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export.write_peft_form

    def write_changed(run: Any, folder: Path) -> None:
        write(run, folder)
        file = folder / "adapter_config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps(config | {"lora_alpha": 10 * config["lora_alpha"]}))

    monkeypatch.setattr(export, "write_peft_form", write_changed)
    with pytest.raises(Failed, match=r"differs from the run .*: adapter \("):
        finished.export(gguf=None, page=Path("another-key"), ollama=True)


def test_a_whole_model_has_no_adapter(finished: Finished, in_process: list[Any]) -> None:
    out = finished.export("full")
    assert not (out / "adapter").exists() and [form.kind for form in in_process] == ["whole", "merged"]
    card = (out / "README.md").read_text()
    assert "all weights were trained" in card and "library_name: transformers" in card and '"adapter")' not in card


def test_runs_without_weights_are_refused_in_one_line(finished: Finished, tmp_path: Path) -> None:
    study, results, run = finished.study, finished.results, finished.runs["lora"]
    request = export.ExportRequest()
    with pytest.raises(UserError, match=r"^run: not a run of toy \(nobody\)\. Fix: .*results/toy/train\.$"):
        export.export_run(study=study, results=results, name="nobody", request=request)
    with pytest.raises(UserError, match=r"no finished run\. Fix: run the study first"):
        export.export_run(study=study, results=tmp_path, name=run, request=request)
    record = replace(read_record(results / "train" / run / "record.json", RunRecord))
    for changes, reason in (
        ({"status": "diverged", "reason": "loss NaN"}, r"diverged and left no weights \(loss NaN\)\. Fix: "),
        ({"method": "none"}, r"nothing was trained \(method none\)\. Fix: use its base"),
    ):
        folder = tmp_path / "train" / run
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder / "record.json", replace(record, **changes))
        with pytest.raises(UserError, match=reason):
            export.export_run(study=study, results=tmp_path, name=run, request=request)


def test_without_a_run_it_is_the_one_that_the_page_names(finished: Finished, tmp_path: Path) -> None:
    from loragrid.exporting.exported_run import run_to_take

    rows = [{"run": name, "ship": "ship", "gain_low": gain} for name, gain in (("a", 0.1), ("b", 0.3), ("c", 0.2))]
    rows[1]["ship"] = "can't tell"
    (tmp_path / "compare").mkdir()
    (tmp_path / "compare" / "compare.json").write_text(json.dumps({"trade_offs": rows}))
    assert run_to_take(finished.study, tmp_path) == "c"
    (tmp_path / "compare" / "compare.json").write_text(json.dumps({"trade_offs": rows[1:2]}))
    with pytest.raises(UserError, match=r"^run: the page names none to take.*--config run=RUN\.$"):
        run_to_take(finished.study, tmp_path)


def test_the_card_s_lines_load_the_forms(
    finished: Finished, in_process: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of the card is run as it is, in the exported folder."""
    out = finished.export("lora", page=Path("no-page"))
    monkeypatch.chdir(out)
    adapter, merged, ask = re.findall(r"^```python\n(.*?)^```$", (out / "README.md").read_text(), re.M | re.S)
    base = finished.run().record.base_source
    assert len(adapter.splitlines()) == 5 and len(ast.parse(merged).body) == 3
    adapter = adapter.replace("path/to/llama-s", base)
    found: dict[str, dict[str, Any]] = {}
    for name, lines in (("adapter", adapter), ("merged", merged)):
        found[name] = {}
        exec(lines, found[name])
    import torch

    ids = torch.arange(7, 40)[None]
    with torch.no_grad():
        logits = [one["model"].float()(ids).logits for one in found.values()]
    assert torch.allclose(*logits, atol=0.02) and not torch.equal(*logits)
    exec(ask.replace("max_new_tokens=200", "max_new_tokens=3").replace("print", "answer ="), found["merged"])
    assert found["merged"]["answer"].endswith("<|assistant|>" + found["merged"]["answer"].partition("<|assistant|>")[2])
