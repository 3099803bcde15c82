"""Scoring of every method, of a run at a part of its budget, and of adopted adapters."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import score
from loragrid.errors import UserError
from loragrid.records.record import RunRecord, ScoreRecord, read_record, write_record
from loragrid.scoring.loaded_model import LoadedModel
from loragrid.scoring.subjects import Subject
from loragrid.study.study_file import Study, load_study
from loragrid.workflow.jobs import Jobs
from tests.fixtures.score_toys import (
    as_base,
    as_run,
    finish,
    make_study,
    metrics,
    write_adapter,
    write_model,
    write_peft,
)

METHODS = ("dora", "rslora", "vera", "ia3", "full")
SCORING = {"target": ["heldout_loss"], "limit": 6, "batch_size": 4, "at": [0.5, 1.0]}


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory, toy_llama: Path) -> Path:
    return write_adapter(toy_llama, tmp_path_factory.mktemp("elsewhere") / "theirs", seed=7)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, toy_llama: Path, adopted: Path) -> Study:
    """A study of one cell a method, with an adopted adapter."""
    return make_study(
        tmp_path_factory.mktemp("methods"), toy_llama, grid={"axes": {"method": ["lora", *METHODS]}}, scoring=SCORING,
        adopt={"theirs": {"path": str(adopted), "model": "toy"}},
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(study: Study, toy_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """Method → run id and folder."""
    from peft import IA3Config, VeraConfig

    found = {}
    for seed, cell in enumerate(study.cells):
        method, folder = cell.settings.method, tmp_path_factory.mktemp(cell.settings.method)
        if method == "full":
            write_model(toy_llama, folder / "model", seed=seed)
        elif method == "vera":
            config = VeraConfig(r=8, target_modules=["q_proj", "down_proj"], init_weights=False, task_type="CAUSAL_LM")
            write_peft(toy_llama, folder / "adapter", config, seed=seed)
        elif method == "ia3":
            names = {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
            config = IA3Config(init_ia3_weights=False, task_type="CAUSAL_LM", **names)
            write_peft(toy_llama, folder / "adapter", config, seed=seed)
        else:
            options = {"dora": {"use_dora": True}, "rslora": {"use_rslora": True}}.get(method, {})
            write_adapter(toy_llama, folder / "adapter", seed=seed, **options)
        found[method] = finish(study, cell, folder), folder
    return found


def name_of_adopted(study: Study) -> str:
    (name,) = study.adopted
    return name


def loss(out: Path) -> float:
    return metrics(out)["heldout_loss"]["loss"]["value"]


def test_every_method_is_scored_and_leaves_the_base_as_it_was(study, data, trained, tmp_path):
    """All in one process: the base before, between and after them has one loss, and everything else another."""
    subjects = [as_base(study, data, tmp_path / "base")]
    for method, run in trained.items():
        subjects += [as_run(run, data, tmp_path / method), as_base(study, data, tmp_path / f"after-{method}")]
    subjects.append(Subject(name_of_adopted(study), None, data, tmp_path / "adopted"))
    score.score_subjects(study=study, subjects=subjects)
    base = loss(tmp_path / "base")
    tuned = {loss(tmp_path / name) for name in (*trained, "adopted")}
    assert len(tuned) == len(trained) + 1 and base not in tuned
    assert {loss(tmp_path / f"after-{method}") for method in trained} == {base}
    records = {name: read_record(tmp_path / name / "score.json", ScoreRecord) for name in (*trained, "adopted")}
    for method, (_, folder) in trained.items():
        assert records[method].weights_sha256 == read_record(folder / "record.json", RunRecord).weights_sha256
        assert (records[method].kind, records[method].share, records[method].source) == ("run", 1.0, None)


def test_a_whole_model_is_scored_as_itself_with_the_base_s_template(study, data, trained, toy_llama, tmp_path):
    from loragrid.models.loading import load_base, load_tokenizer
    from loragrid.scoring.heldout.losses import loss_result, measure

    run, folder = trained["full"]
    for file in folder.glob("model/tokenizer*"):  # not read: the template is the base's
        file.unlink()
    finish(study, study.cell(run), folder)
    score.score_subjects(study=study, subjects=[as_run((run, folder), data, tmp_path)])
    entry = replace(study.base_entry(study.cell(run)), path=str(folder / "model"))
    tokenizer = load_tokenizer(study.base_entry(study.cell(run)))
    rows = data / "heldout.parquet"
    result = loss_result(tokenizer, rows, measure(load_base(entry, device="cpu"), rows))
    assert loss(tmp_path) == result.metrics["loss"]["value"]


def test_a_run_is_scored_at_a_part_of_its_budget(study, data, trained, toy_llama, tmp_path):
    run, folder = trained["lora"]
    folder = shutil.copytree(folder, tmp_path / "run")
    write_adapter(toy_llama, folder / "along" / "0.5" / "adapter", seed=50)
    record = replace(read_record(folder / "record.json", RunRecord), kept_at=(0.5,))
    write_record(folder / "record.json", record)
    half = Subject(f"{run}@0.5", folder, data, tmp_path / "half")
    quarter = Subject(f"{run}@0.25", folder, data, tmp_path / "quarter")
    score.score_subjects(study=study, subjects=[half, as_run((run, folder), data, tmp_path / "end"), quarter])
    found = read_record(half.out / "score.json", ScoreRecord)
    assert (found.subject, found.kind, found.share, found.status) == (f"{run}@0.5", "run", 0.5, "scored")
    assert found.weights_sha256 == record.weights_sha256
    assert loss(half.out) != loss(tmp_path / "end")
    missing = read_record(quarter.out / "score.json", ScoreRecord)
    assert (missing.status, missing.reason) == ("not_scored", "0.25 of the budget: the run kept nothing there")
    # What was kept before the run diverged is scored, its end is not.
    write_record(folder / "record.json", replace(record, status="diverged", reason="NaN", weights_sha256=None))
    shutil.rmtree(half.out)
    score.score_subjects(study=study, subjects=[half])
    assert read_record(half.out / "score.json", ScoreRecord).status == "scored"
    shutil.rmtree(folder / "along")
    with pytest.raises(UserError, match=r"along/0\.5/adapter/adapter_model\.safetensors is missing"):
        score.score_subjects(study=study, subjects=[half])


def test_an_adopted_adapter_is_marked_with_its_source(study, data, adopted, toy_llama, tmp_path):
    name = name_of_adopted(study)
    score.score_subjects(study=study, subjects=[Subject(name, None, data, tmp_path)])
    record = read_record(tmp_path / "score.json", ScoreRecord)
    assert (record.kind, record.model, record.base) == ("adopted", "toy", study.cells[0].base)
    assert (record.source, record.source_commit) == (str(adopted), None)
    assert record.notes == ("trained elsewhere: its training is not this study's",)
    # Another adapter in the same folder is another subject.
    other = shutil.copytree(adopted, tmp_path / "other")
    write_adapter(toy_llama, other, seed=8)
    settings = study.yaml | {"adopt": {"theirs": {"path": str(other), "model": "toy"}}}
    assert name_of_adopted(replace(study, yaml=settings)) != name
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "owner/another"}))
    changed = replace(study, yaml=settings)
    score.score_subjects(study=changed, subjects=[Subject(name_of_adopted(changed), None, data, tmp_path / "out")])
    notes = read_record(tmp_path / "out" / "score.json", ScoreRecord).notes
    assert notes[1] == "its configuration names the base another"


def test_an_adapter_from_the_hub_is_two_files_at_a_commit(study, data, adopted, tmp_path, monkeypatch):
    import huggingface_hub

    commit, asked = "0123456789abcdef0123456789abcdef01234567", []

    def download(hub, *, revision, allow_patterns):
        asked.append((hub, revision, sorted(allow_patterns)))
        return str(shutil.copytree(adopted, tmp_path / commit, dirs_exist_ok=True))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    settings = study.yaml | {"adopt": {"theirs": {"hub": "owner/name", "revision": "v1", "model": "toy"}}}
    hub = replace(study, yaml=settings)
    score.score_subjects(study=hub, subjects=[Subject(name_of_adopted(hub), None, data, tmp_path / "out")])
    assert asked == [("owner/name", "v1", ["adapter_config.json", "adapter_model.safetensors"])]
    record = read_record(tmp_path / "out" / "score.json", ScoreRecord)
    assert (record.source, record.source_commit) == ("owner/name", commit)


def vocabulary(folder: Path, model: Path) -> None:
    write_adapter(model, folder, seed=1, modules_to_save=["embed_tokens", "lm_head"])


def tokens(folder: Path, model: Path) -> None:
    write_adapter(model, folder, seed=1, trainable_token_indices=[1, 2])


def resized(folder: Path, model: Path) -> None:
    """Weights of an embedding beside the adapter, as PEFT saves them after a model was resized."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(write_adapter(model, folder, seed=1) / "adapter_model.safetensors")
    weights["base_model.model.model.embed_tokens.weight"] = torch.zeros(300, 32)
    save_file(weights, folder / "adapter_model.safetensors")


def norms(folder: Path, model: Path) -> None:
    write_adapter(model, folder, seed=1, modules_to_save=["norm"])


def biases(folder: Path, model: Path) -> None:
    write_adapter(model, folder, seed=1, bias="all")


def configured(**changes: object) -> object:
    def write(folder: Path, model: Path) -> None:
        file = write_adapter(model, folder, seed=1) / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return write


def pickled(folder: Path, model: Path) -> None:
    (write_adapter(model, folder, seed=1) / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def broken(folder: Path, model: Path) -> None:
    (write_adapter(model, folder, seed=1) / "adapter_model.safetensors").write_bytes(b"\xff" * 40)


REFUSED = [
    (vocabulary, "an adapter with new vocabulary"),
    (tokens, "an adapter with new vocabulary"),
    (resized, "an adapter with new vocabulary"),
    (norms, "trains whole layers of its base too"),
    (biases, r"trains whole layers of its base too|trains its base's biases \(bias: all\)"),
    (configured(init_lora_weights="pissa_niter_4"), r"changes its base's weights .*\(init_lora_weights: pissa_niter_4\)"),
    (configured(peft_type="PROMPT_TUNING"), r"not a kind of adapter that is supported \(PROMPT_TUNING\)"),
    (configured(layer_replication=[[0, 1]]), r"not supported \(layer_replication\)"),
    (configured(r=8), "rank 4 in its weights and 8 in its configuration"),
    (configured(target_modules=["q_proj"]), "which is not among its target_modules"),
    (pickled, r"no adapter_model\.safetensors in the folder"),
    (broken, r"adapter_model\.safetensors: not a safetensors file"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "message"), REFUSED)
def test_an_adapter_that_cannot_be_adopted_is_refused_before_any_work(study, toy_llama, tmp_path, write, message):
    write(tmp_path / "theirs", toy_llama)
    settings = study.yaml | {"adopt": {"theirs": {"path": str(tmp_path / "theirs"), "model": "toy"}}}
    with pytest.raises(UserError, match=message) as caught:
        Jobs(replace(study, yaml=settings), results=str(tmp_path), session_minutes=None)
    assert "\n" not in str(caught.value)


def test_an_adapter_of_another_base_is_refused(study, data, toy_llama, toy_gemma, tmp_path, root):
    write_adapter(toy_gemma, tmp_path / "theirs", seed=1)
    entry = {"path": str(tmp_path / "theirs"), "model": "toy"}
    wrong = replace(study, yaml=study.yaml | {"adopt": {"theirs": entry}})
    message = r"adopt\.theirs: .*(does not fit the base's|its base has no layer).* Fix: set adopt's model"
    with pytest.raises(UserError, match=message):
        Jobs(wrong, results=str(tmp_path), session_minutes=None)
    with pytest.raises(UserError, match=message):
        score.score_subjects(study=wrong, subjects=[Subject(name_of_adopted(wrong), None, data, tmp_path / "out")])


def test_snakemake_refuses_new_vocabulary_in_one_line(study, toy_llama, tmp_path, root):
    vocabulary(tmp_path / "theirs", toy_llama)
    text = study.path.read_text().replace(study.yaml["adopt"]["theirs"]["path"], str(tmp_path / "theirs"))
    for file in study.path.parent.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "toy.yaml").write_text(text)
    assert load_study(str(tmp_path / "toy.yaml")).adopt["theirs"].path == str(tmp_path / "theirs")
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "-n", "--directory", str(tmp_path)]
    done = subprocess.run(
        [*command, "--config", f"study={tmp_path / 'toy.yaml'}"],
        cwd=root,
        env=dict(os.environ),
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(lines) == 1
    assert "adopt.theirs: an adapter with new vocabulary" in lines[0]


def test_contents_of_a_run_scored_after_others_are_those_scored_alone(study, data, trained, tmp_path):
    alone, after = tmp_path / "alone", tmp_path / "after"
    score.score_subjects(study=study, subjects=[as_run(trained["dora"], data, alone)])
    others = [as_run(trained[method], data, tmp_path / method) for method in ("ia3", "vera")]
    score.score_subjects(study=study, subjects=[*others, as_run(trained["dora"], data, after)])
    assert (alone / "items.parquet").read_bytes() == (after / "items.parquet").read_bytes()


@pytest.mark.parametrize("precision", ["16bit", "4bit"])
def test_adapters_of_every_kind_leave_a_base_of_lower_precision_as_it_was(study, data, trained, precision):
    entry = replace(study.base_entry(study.cells[0]), precision=precision)
    loaded = LoadedModel("toy", entry, scoring=study.scoring)
    rows = data / "heldout.parquet"
    base = tuple(loaded.heldout_losses(rows))
    losses = set()
    for method in ("lora", "dora", "vera", "ia3"):
        loaded.attach_adapter(trained[method][1] / "adapter")
        losses.add(tuple(loaded.heldout_losses(rows)))
        loaded.attach_adapter(None)
        assert tuple(loaded.heldout_losses(rows)) == base
    assert len(losses) == 4 and base not in losses
