"""The score stage on toy models: a base and two adapters, killed and resumed, alone and together, good input and bad."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas
import pytest
import yaml

import score
from loragrid.errors import Failed, Paused, UserError
from loragrid.records.record import RunRecord, ScoreRecord, read_record, write_record
from loragrid.runtime.atomic_files import sha256_file
from loragrid.scoring.loaded_model import Workbench
from loragrid.scoring.subjects import Subject
from loragrid.study.study_file import load_study

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: questions.jsonl}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
metric_list:
  - {{metric: {metric}, aggregation: mean, higher_is_better: true}}
"""
GENERATE = "generation_kwargs: {until: [], max_gen_toks: %s, do_sample: false}\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory, toy_llama, root):
    """A study of three learning rates on the toy model, with task files of its own."""
    folder = tmp_path_factory.mktemp("study")
    settings = yaml.safe_load((root / "config" / "studies" / "demo.yaml").read_text())
    settings["models"] = {"toy": {"path": str(toy_llama), "precision": "32bit", "chat_template": None}}
    settings["base_case"] |= {"model": "toy"}
    settings["grid"] |= {"learning_rate": [1e-3, 1e-2, 1e-1], "rank": [16], "batch": [[2, 4]], "model": ["toy"]}
    settings["scoring"] |= {
        "target": ["answer.yaml", "heldout_loss"], "retention": ["choice.yaml"],
        "qualitative": "prompts.jsonl", "limit": 6, "batch_size": 4,
    }  # fmt: skip
    questions = [{"q": f"What is {i} and {i}?", "a": str(2 * i)} for i in range(9)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    (folder / "answer.yaml").write_text(
        TASK.format(name="answer", kind="generate_until", metric="exact_match") + GENERATE % 12
    )
    (folder / "choice.yaml").write_text(
        TASK.format(name="choice", kind="multiple_choice", metric="acc").replace(
            '"{{a}}"', '0\ndoc_to_choice: ["1", "2"]'
        )
    )
    prompt = {"id": "one", "prompt": "Say it in other words", "original": "Say it", "reference": "It is said."}
    (folder / "prompts.jsonl").write_text(json.dumps(prompt) + "\n")
    (folder / "toy.yaml").write_text(yaml.safe_dump(settings))
    return load_study(str(folder / "toy.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)
    ids = [[rng.randrange(7, 200) for _ in range(rng.randint(6, 30))] for _ in range(9)]
    labels = [[-100] * 3 + row[3:] for row in ids]
    pandas.DataFrame({"row": range(9), "input_ids": ids, "labels": labels}).to_parquet(folder / "heldout.parquet")
    pandas.DataFrame({"row": range(9), "input_ids": ids, "labels": labels}).to_parquet(folder / "train.parquet")
    return folder


@pytest.fixture(scope="module")
def runs(study, toy_llama, tmp_path_factory):
    """Two finished runs: adapters with random weights, strong enough to change every answer, and their records."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = []
    for seed, cell in enumerate(study.cells[:2]):
        folder = tmp_path_factory.mktemp(f"run{seed}")
        torch.manual_seed(seed)
        config = LoraConfig(
            r=4, lora_alpha=64, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
        )
        get_peft_model(AutoModelForCausalLM.from_pretrained(toy_llama), config).save_pretrained(folder / "adapter")
        write_record(folder / "record.json", run_record(study, cell, folder / "adapter"))
        folders.append((cell.run, folder))
    return folders


def run_record(study, cell, adapter):
    return RunRecord(
        study=study.name, run=cell.run, model=cell.model, settings=cell.identity, status="finished", reason=None,
        backend="trl", data_id=cell.data, data_fingerprint="", train_rows=1, heldout_rows=1, base_source="", base_commit=None,
        base_sha256="", losses_file="losses.csv", steps=1, planned_steps=1, samples=1, tokens=1, loss_tokens=1,
        padding_share=0.0, train_seconds=1.0, tokens_per_second=1.0, peak_vram_mib=None, peak_rss_mib=1.0,
        energy_joules=None, trainable_parameters=1, total_parameters=1, final_train_loss=1.0, first_heldout_loss=1.0,
        final_heldout_loss=1.0, sessions=(), versions={}, git={}, device={}, code="",
        adapter_sha256=sha256_file(adapter / "adapter_model.safetensors"), finished_at="",
    )  # fmt: skip


def as_run(run, data, out):
    name, folder = run
    return Subject(name, folder / "adapter", folder / "record.json", data, out)


def as_base(study, data, out):
    return Subject(study.cells[0].base, None, None, data, out)


RESULTS = ("items.parquet", "answers.jsonl", "answers_summary.json", "lm_eval/answer.json", "lm_eval/choice.json")


def contents(out):
    return {name: (out / name).read_bytes() for name in RESULTS}


def metrics(out):
    return {name: task.metrics for name, task in read_record(out / "score.json", ScoreRecord).tasks.items()}


@pytest.fixture(scope="module")
def alone(study, data, runs, tmp_path_factory):
    """Each subject scored in a call of its own: base, then both runs."""
    outs = [tmp_path_factory.mktemp(name) for name in ("base", "first", "second")]
    subjects = [as_base(study, data, outs[0]), *(as_run(run, data, out) for run, out in zip(runs, outs[1:]))]
    for subject in subjects:
        score.score_subjects(study=study, subjects=[subject])
    return subjects


def test_everything_is_scored_and_recorded(study, alone, runs):
    for subject, kind in zip(alone, ("base", "run", "run"), strict=True):
        record = read_record(subject.out / "score.json", ScoreRecord)
        assert (record.kind, record.status, record.subject) == (kind, "scored", subject.name)
        assert record.base == alone[0].name
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
    assert read_record(alone[1].out / "score.json", ScoreRecord).adapter_sha256


def test_subjects_are_asked_the_same_and_answer_differently(alone):
    tables = [pandas.read_parquet(subject.out / "items.parquet") for subject in alone]
    keys = ["task", "item", "metric", "prompt_sha256"]
    for table in tables[1:]:
        assert table[keys].equals(tables[0][keys])
        assert not table[table.task == "heldout_loss"].value.equals(tables[0][tables[0].task == "heldout_loss"].value)
        assert not table[table.task == "answer"].output.equals(tables[0][tables[0].task == "answer"].output)


def test_scored_together_is_scored_alone(study, data, runs, alone, tmp_path):
    """One loaded base for all: whatever was scored before leaves no trace in what comes after."""
    subjects = [
        as_run(runs[1], data, tmp_path / "1"), as_base(study, data, tmp_path / "2"), as_run(runs[0], data, tmp_path / "3"),
        as_run(runs[1], data, tmp_path / "4"), as_base(study, data, tmp_path / "5"),
    ]  # fmt: skip
    score.score_subjects(study=study, subjects=subjects)
    by_name = {subject.name: subject.out for subject in alone}
    for subject in subjects:
        assert contents(subject.out) == contents(by_name[subject.name])
        assert metrics(subject.out) == metrics(by_name[subject.name])


def test_an_adapter_taken_off_leaves_the_base_bit_by_bit(study, runs):
    import torch

    bench = Workbench("toy", study.models["toy"], scoring=study.scoring)
    before = {name: weight.clone() for name, weight in bench.model.state_dict().items()}
    bench.wear(runs[0][1] / "adapter")
    assert any("lora" in name for name, _ in bench.model.named_parameters())
    bench.wear(None)
    after = bench.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_killed_job_goes_on_task_by_task(study, data, runs, alone, tmp_path, monkeypatch):
    subject = as_run(runs[0], data, tmp_path)
    scored, run = [], Workbench.run

    def dying(self, task, *, data):
        name = task.name if task else "heldout_loss"
        if name == "choice" and "choice" not in scored:
            scored.append(name)
            raise KeyboardInterrupt  # as a kill: not an Exception, nothing catches it
        scored.append(name)
        return run(self, task, data=data)

    monkeypatch.setattr(Workbench, "run", dying)
    with pytest.raises(KeyboardInterrupt):
        score.score_subjects(study=study, subjects=[subject])
    assert not (tmp_path / "score.json").exists()
    score.score_subjects(study=study, subjects=[subject])
    assert scored == ["answer", "heldout_loss", "choice", "choice"]
    assert contents(tmp_path) == contents(alone[1].out)
    score.score_subjects(study=study, subjects=[subject])
    assert len(scored) == 4  # nothing left to score, nothing loaded


def test_a_session_that_is_over_ends_scoring_between_tasks(study, data, runs, alone, tmp_path, monkeypatch):
    """What was scored is kept; a job that begins too late loads no base, and the next session scores the rest."""
    subject, now, run = as_run(runs[0], data, tmp_path), [time.monotonic()], Workbench.run

    def long(self, task, *, data):
        result = run(self, task, data=data)
        now[0] += 60
        return result

    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now[0])
        patch.setattr(Workbench, "run", long)
        with pytest.raises(Paused, match=r"paused before choice .* run the same command to go on"):
            score.score_subjects(study=study, subjects=[subject], session_ends=now[0] + 170)
    assert (tmp_path / "tasks/heldout_loss.json").exists() and not (tmp_path / "score.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(Workbench, "prepare", lambda self: pytest.fail("the base was loaded"))
        with pytest.raises(Paused, match="paused before choice"):
            score.score_subjects(study=study, subjects=[subject], session_ends=time.monotonic())
    score.score_subjects(study=study, subjects=[subject], session_ends=time.monotonic() + 600)
    assert contents(tmp_path) == contents(alone[1].out)


def test_sigkill_in_the_middle_loses_one_task_at_most(study, data, runs, alone, tmp_path, root):
    name, folder = runs[0]
    command = [sys.executable, root / "scripts" / "score.py", "--study", study.path, "--subject", name]
    paths = ["--adapter", folder / "adapter", "--record", folder / "record.json", "--data", data, "--out", tmp_path]
    job = subprocess.Popen([*command, *paths], stderr=subprocess.DEVNULL)
    first = tmp_path / "tasks" / "answer.json"
    while not first.exists() and job.poll() is None:
        time.sleep(0.001)
    job.kill()
    assert job.wait() == -signal.SIGKILL
    assert not (tmp_path / "score.json").exists()
    before = first.stat().st_mtime_ns
    score.score_subjects(study=study, subjects=[as_run(runs[0], data, tmp_path)])
    assert first.stat().st_mtime_ns == before
    assert contents(tmp_path) == contents(alone[1].out)


def test_what_was_kept_for_other_settings_or_was_damaged_is_scored_again(study, data, runs, tmp_path, monkeypatch):
    subject = as_run(runs[0], data, tmp_path)
    score.score_subjects(study=study, subjects=[subject])
    scored, run = [], Workbench.run

    def noting(self, task, *, data):
        scored.append(task.name if task else "heldout_loss")
        return run(self, task, data=data)

    monkeypatch.setattr(Workbench, "run", noting)
    table = tmp_path / "tasks" / "choice.parquet"
    table.write_bytes(table.read_bytes()[:-7])
    score.score_subjects(study=study, subjects=[subject])
    assert scored == ["choice"]
    limited = replace(study, yaml=study.yaml | {"scoring": study.yaml["scoring"] | {"limit": 3}})
    score.score_subjects(study=limited, subjects=[subject])
    assert scored[1:] == ["answer", "heldout_loss", "choice"]


def test_a_task_that_raises_is_recorded_and_the_others_are_kept(study, data, alone, tmp_path):
    """max_gen_toks as long as the context leaves no room for a prompt: lm-eval refuses in the middle of the task."""
    folder = study.path.parent
    text = TASK.format(name="endless", kind="generate_until", metric="exact_match") + GENERATE % 512
    (folder / "endless.yaml").write_text(text)
    scoring = study.yaml["scoring"] | {"target": [str(folder / "endless.yaml"), *study.scoring.target]}
    subject = as_base(study, data, tmp_path)
    score.score_subjects(study=replace(study, yaml=study.yaml | {"scoring": scoring}), subjects=[subject])
    tasks = read_record(tmp_path / "score.json", ScoreRecord).tasks
    assert tasks["endless"].status == "failed"
    assert "max tokens to generate (512)" in tasks["endless"].reason
    assert contents(tmp_path) == contents(alone[0].out)
    assert not (tmp_path / "tasks" / "endless.json").exists()  # tried again next time


def test_a_model_that_does_not_fit_fails_the_job_and_no_task(study, data, tmp_path, monkeypatch):
    def too_big(entry, *, device):
        raise RuntimeError("CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has ... of which 1.50 GiB is free.")

    monkeypatch.setattr("loragrid.scoring.loaded_model.load_base", too_big)
    with pytest.raises(Failed, match=r"model toy does not fit: .*needed 3072.0 MiB, available 1536.0 MiB"):
        score.score_subjects(study=study, subjects=[as_base(study, data, tmp_path)])
    assert not list(tmp_path.rglob("*.json"))


def test_a_diverged_run_is_not_scored_and_says_why(study, data, runs, tmp_path, capsys):
    name, folder = runs[0]
    record = replace(read_record(folder / "record.json", RunRecord), status="diverged", reason="loss is NaN at step 7")
    write_record(tmp_path / "record.json", record)
    subject = Subject(name, tmp_path / "adapter", tmp_path / "record.json", data, tmp_path / "out")
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


def test_mistakes_are_told_before_anything_is_scored(study, data, runs, tmp_path):
    (name, folder), (other, _) = runs
    good = as_run(runs[0], data, tmp_path / "out")
    (tmp_path / "changed").mkdir()
    for file in (folder / "adapter").iterdir():
        content = file.read_bytes()
        (tmp_path / "changed" / file.name).write_bytes(
            content[:-1] + b"!" if file.suffix == ".safetensors" else content
        )
    for wrong, message in (
        (replace(good, record=None), "give both --adapter and --record"),
        (replace(good, name=other), f"is the record of {name}, not of {other}"),
        (replace(good, name="nobody"), "holds no run nobody"),
        (replace(good, name="base-nobody", adapter=None, record=None), "has no base base-nobody"),
        (replace(good, adapter=tmp_path), "adapter_model.safetensors is missing"),
        (replace(good, adapter=tmp_path / "changed"), "was changed since its record was written"),
        (replace(good, record=tmp_path / "absent.json"), "absent.json is missing"),
        (replace(good, data=tmp_path), "heldout.parquet is missing"),
    ):
        with pytest.raises(UserError, match=message):
            score.score_subjects(study=study, subjects=[wrong])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("line", ["{", "[]", '{"subject": "a"}'])
def test_a_bad_list_is_named_with_its_line(tmp_path, line):
    (tmp_path / "list.jsonl").write_text(line)
    with pytest.raises(UserError, match=r"list.jsonl, line 1"):
        score.read_list(tmp_path / "list.jsonl")


def test_command_line(study, data, runs, alone, tmp_path, root):
    """As the rule calls it, from another folder; and a mistake there is one line and exit status 2."""
    name, folder = runs[0]
    command = [sys.executable, root / "scripts" / "score.py", "--study", study.path, "--subject", name]
    paths = ["--adapter", folder / "adapter", "--record", folder / "record.json", "--data", data, "--out", "out"]
    done = subprocess.run([*command, *paths], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(alone[1].out)
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"[{name}]")]
    assert [line.split()[1] for line in lines] == ["answer:", "heldout_loss:", "choice:"]
    bad = subprocess.run([*command, *paths[:5], tmp_path, *paths[6:]], cwd=tmp_path, capture_output=True, text=True)
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: ") and bad.stderr.count("\n") == 1
