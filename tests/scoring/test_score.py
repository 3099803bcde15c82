"""The score stage on toy models: a base and two adapters, alone and together, valid and invalid input."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas
import pytest

import score
from loragrid.errors import Failed, UserError
from loragrid.records.record import RunRecord, ScoreRecord, read_record, write_record
from loragrid.records.seal import digests_of, write_seal
from loragrid.scoring.loaded_model import LoadedModel
from loragrid.scoring.subjects import Subject, read_subjects
from tests.fixtures.score_toys import GENERATE, TASK, as_base, as_run, contents, metrics


def test_everything_is_scored_and_recorded(study, scored_alone, runs):
    for subject, kind in zip(scored_alone, ("base", "run", "run"), strict=True):
        record = read_record(subject.out / "score.json", ScoreRecord)
        assert (record.kind, record.status, record.subject) == (kind, "scored", subject.name)
        assert record.base == scored_alone[0].name
        assert {name: task.status for name, task in record.tasks.items()} == dict.fromkeys(record.tasks, "scored")
        assert {name: (task.group, task.items, task.primary_metric) for name, task in record.tasks.items()} == {
            "answer": ("target", 6, "exact_match"), "heldout_loss": ("target", 9, "loss"), "choice": ("retention", 6, "acc"),
        }  # fmt: skip
        table = pandas.read_parquet(subject.out / "items.parquet")
        assert list(table) == ["task", "group", "item", "cluster", "metric", "value", "prompt_sha256", "output"]
        assert not table.duplicated(["task", "item", "metric"]).any()
        for name, task in record.tasks.items():
            values = table[(table.task == name) & (table.metric == task.primary_metric)].value
            if name != "heldout_loss":
                assert values.mean() == pytest.approx(task.metrics[task.primary_metric]["value"])
        assert [json.loads(line)["id"] for line in (subject.out / "answers.jsonl").open()] == ["one"]
    assert read_record(scored_alone[1].out / "score.json", ScoreRecord).weights_sha256


def test_subjects_are_asked_the_same_and_answer_differently(scored_alone):
    tables = [pandas.read_parquet(subject.out / "items.parquet") for subject in scored_alone]
    keys = ["task", "item", "metric", "prompt_sha256"]
    for table in tables[1:]:
        assert table[keys].equals(tables[0][keys])
        assert not table[table.task == "heldout_loss"].value.equals(tables[0][tables[0].task == "heldout_loss"].value)
        assert not table[table.task == "answer"].output.equals(tables[0][tables[0].task == "answer"].output)


def test_scored_together_is_scored_alone(study, data, runs, scored_alone, tmp_path):
    """All subjects share one loaded base; no subject influences a later one."""
    subjects = [
        as_run(runs[1], data, tmp_path / "1"), as_base(study, data, tmp_path / "2"), as_run(runs[0], data, tmp_path / "3"),
        as_run(runs[1], data, tmp_path / "4"), as_base(study, data, tmp_path / "5"),
    ]  # fmt: skip
    score.score_subjects(study=study, subjects=subjects)
    by_name = {subject.name: subject.out for subject in scored_alone}
    for subject in subjects:
        assert contents(subject.out) == contents(by_name[subject.name])
        assert metrics(subject.out) == metrics(by_name[subject.name])


def test_a_removed_adapter_leaves_the_base_bit_by_bit(study, runs):
    import torch

    loaded = LoadedModel("toy", study.base_entry(study.cells[0]), scoring=study.scoring)
    before = {name: weight.clone() for name, weight in loaded.model.state_dict().items()}
    loaded.attach_adapter(runs[0][1] / "adapter")
    assert any("lora" in name for name, _ in loaded.model.named_parameters())
    loaded.attach_adapter(None)
    after = loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_task_that_raises_is_recorded_and_the_others_are_kept(study, data, scored_alone, tmp_path):
    """max_gen_toks equal to the context leaves no room for a prompt: lm-eval raises during the task."""
    folder = study.path.parent
    text = TASK.format(name="endless", kind="generate_until", metric="exact_match") + GENERATE % 512
    (folder / "endless.yaml").write_text(text)
    scoring = study.yaml["scoring"] | {"target": [str(folder / "endless.yaml"), *study.scoring.target]}
    subject = as_base(study, data, tmp_path)
    score.score_subjects(study=replace(study, yaml=study.yaml | {"scoring": scoring}), subjects=[subject])
    tasks = read_record(tmp_path / "score.json", ScoreRecord).tasks
    assert tasks["endless"].status == "failed"
    assert "max tokens to generate (512)" in tasks["endless"].reason
    assert contents(tmp_path) == contents(scored_alone[0].out)
    assert not (tmp_path / "tasks" / "endless.json").exists()  # tried again next time


def test_a_model_that_does_not_fit_fails_the_job_and_not_a_task(study, data, tmp_path, monkeypatch):
    def too_big(entry, *, device):
        raise RuntimeError("CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has ... of which 1.50 GiB is free.")

    monkeypatch.setattr("loragrid.models.base_cache.load_base", too_big)
    with pytest.raises(
        Failed, match=r"model toy: out of GPU memory \(3072\.0 MiB more needed, 1536\.0 MiB available\)"
    ):
        score.score_subjects(study=study, subjects=[as_base(study, data, tmp_path)])
    assert not list(tmp_path.rglob("*.json"))


def test_a_diverged_run_is_not_scored_and_the_record_says_why(study, data, runs, tmp_path, capsys):
    name, folder = runs[0]
    record = replace(read_record(folder / "record.json", RunRecord), status="diverged", reason="loss is NaN at step 7")
    write_record(tmp_path / "record.json", record)
    subject = Subject(name, tmp_path, data, tmp_path / "out")
    score.score_subjects(study=study, subjects=[subject])
    written = read_record(tmp_path / "out" / "score.json", ScoreRecord)
    assert (written.status, written.tasks, written.kind) == ("not_scored", {}, "run")
    assert written.reason == "the run diverged: loss is NaN at step 7"
    assert "not scored" in capsys.readouterr().err


def test_no_qualitative_prompts_no_answers(study, data, tmp_path):
    settings = study.yaml["scoring"] | {"qualitative": None, "target": ["heldout_loss"], "retention": []}
    (tmp_path / "answers.jsonl").write_text("stale")
    (tmp_path / "lm_eval").mkdir()
    (tmp_path / "lm_eval" / "old.json").write_text("stale")
    subject = as_base(study, data, tmp_path)
    score.score_subjects(study=replace(study, yaml=study.yaml | {"scoring": settings}), subjects=[subject])
    assert not (tmp_path / "answers.jsonl").exists()
    assert not (tmp_path / "lm_eval" / "old.json").exists()
    assert list(read_record(tmp_path / "score.json", ScoreRecord).tasks) == ["heldout_loss"]


def test_mistakes_are_reported_before_anything_is_scored(study, data, runs, tmp_path):
    (name, folder), (other, _) = runs
    good = as_run(runs[0], data, tmp_path / "out")
    for copy in ("changed", "incomplete", "unrecorded"):
        shutil.copytree(folder, tmp_path / copy)
    weights = tmp_path / "changed" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    (tmp_path / "incomplete" / "adapter" / "adapter_model.safetensors").unlink()
    (tmp_path / "unrecorded" / "record.json").unlink()
    other_rows = shutil.copytree(data, tmp_path / "other_rows")
    write_seal(other_rows, digests_of(other_rows, [*other_rows.glob("*.parquet")]), record="card.json", text="")
    with (other_rows / "heldout.parquet").open("ab") as file:
        file.write(b" ")
    for wrong, message in (
        (replace(good, trained=None), "for a run, give --trained"),
        (replace(good, name=other), f"is the record of {name}, not of {other}"),
        (replace(good, name="nobody"), r"no run has this id \(nobody\)"),
        (replace(good, name="base-nobody", trained=None), "no base base-nobody"),
        (replace(good, trained=tmp_path / "incomplete"), "adapter_model.safetensors is missing"),
        (replace(good, trained=tmp_path / "changed"), "changed since their record was written"),
        (replace(good, trained=tmp_path / "unrecorded"), "record.json is missing"),
        (replace(good, data=tmp_path), "heldout.parquet is missing"),
        (replace(good, data=other_rows), "heldout.parquet: changed since it was written"),
    ):
        with pytest.raises(UserError, match=message):
            score.score_subjects(study=study, subjects=[wrong])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("line", ["{", "[]", '{"subject": "a"}'])
def test_a_bad_list_is_named_with_its_line(tmp_path, line):
    (tmp_path / "list.jsonl").write_text(line)
    with pytest.raises(UserError, match=r"list.jsonl, line 1"):
        read_subjects(tmp_path / "list.jsonl")


def test_command_line(study, data, runs, scored_alone, tmp_path, root):
    """Called like the rule, from another folder; a mistake is one line and exit status 2."""
    name, folder = runs[0]
    command = [sys.executable, root / "scripts" / "score.py", "--study", study.path, "--subject", name]
    paths = ["--trained", folder, "--data", data, "--out", "out"]
    done = subprocess.run([*command, *paths], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(scored_alone[1].out)
    # On a busy machine it says how long it has worked.
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"[{name}]") and " | " not in line]
    assert [line.split()[1] for line in lines] == ["answer:", "heldout_loss:", "choice:"]
    bad = subprocess.run([*command, *paths[:3], tmp_path, *paths[4:]], cwd=tmp_path, capture_output=True, text=True)
    assert bad.returncode == 2
    (line,) = [line for line in bad.stderr.splitlines() if " | " not in line]
    assert line.startswith("error: ")
