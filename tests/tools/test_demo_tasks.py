"""The demo's lm-eval tasks: the shipped items are what the script writes, and the tasks run from any folder."""

import json
import os
from pathlib import Path

import pytest

from loragrid.demo.running_plans import EVALUATION_WORDINGS, draw_rows, generate_chat
from loragrid.study.study_file import load_study
from tools.make_demo_tasks import CONFIG, DATA_ROWS, DATA_SEED, ITEMS, SEED, make_tasks

TASKS = ("running_plan", "world_facts", "world_sums", "world_lists")


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_shipped_files_are_what_the_script_writes(tmp_path: Path) -> None:
    make_tasks(out=tmp_path, seed=SEED, items=ITEMS)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jsonl"))
    assert len(written) == 5
    for path in written:
        assert (tmp_path / path).read_bytes() == (CONFIG / path).read_bytes(), path


@pytest.mark.parametrize("task", TASKS)
def test_items_are_distinct(task: str) -> None:
    rows = rows_of(CONFIG / "tasks" / "demo" / f"{task}.jsonl")
    assert len({row["id"] for row in rows}) == len(rows) == ITEMS
    assert len({row.get("prompt") or row["question"] for row in rows}) == ITEMS
    if task != "running_plan":
        assert all(len(set(row["choices"])) == 4 and row["label"] in range(4) for row in rows)


def test_plan_requests_are_not_trained_on() -> None:
    rows = draw_rows(DATA_ROWS, DATA_SEED)
    trained = {(r.race, r.level, r.weeks, r.days_per_week) for r, _, _ in rows}
    prompts = {prompt for _, prompt, _ in rows}
    for item in rows_of(CONFIG / "tasks" / "demo" / "running_plan.jsonl"):
        assert (item["race"], item["level"], item["weeks"], item["days_per_week"]) not in trained
        assert item["prompt"] not in prompts


def test_rephrased_prompts_name_rows_of_the_data() -> None:
    (source,) = (entry.source for entry in load_study("demo").data.values())
    assert (source.rows, source.seed) == (DATA_ROWS, DATA_SEED)
    data = {tuple(turn["value"] for turn in row["conversations"]) for row in generate_chat(DATA_ROWS, DATA_SEED)}
    originals = {prompt for prompt, _ in data}
    prompts = rows_of(CONFIG / "prompts" / "demo.jsonl")
    assert len({row["id"] for row in prompts}) == len(prompts) >= 20
    for row in prompts:
        assert (row["original"], row["reference"]) in data
        assert row["prompt"] not in originals


def test_tasks_run_on_a_toy_model_from_another_folder(toy_llama: Path, tmp_path: Path, monkeypatch) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.chdir(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(toy_llama)
    lm = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(toy_llama), batch_size=4, device="cpu")
    results = simple_evaluate(
        lm,
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(CONFIG / "tasks")),
        apply_chat_template=True,
        limit=4,
        bootstrap_iters=0,
        gen_kwargs={"max_gen_toks": 4},
    )
    assert os.getcwd() == str(tmp_path)
    scores = {
        task: [name.split(",")[0] for name in results["results"][task] if name.endswith(",none")] for task in TASKS
    }
    assert [name for name in scores["running_plan"] if "stderr" not in name] == [
        "exact",
        "weeks_right",
        "days_right",
        "race_named",
    ]
    for task in TASKS[1:]:
        assert "acc" in scores[task]
        assert results["n-samples"][task]["effective"] == 4
    assert results["results"]["running_plan"]["exact,none"] == 0
    assert len(EVALUATION_WORDINGS) >= 4
