"""Files of external runs: tables, a Trainer's state, lm-eval's results and items, whole and broken."""

import json
from pathlib import Path

import pytest

import report
from loragrid.errors import UserError
from loragrid.external.reading import read_external
from loragrid.study.completion import setting_names
from tests.fixtures.external_runs import CURRENT_RESULTS, MOMENT, trainer_state, write_samples


def test_lm_evals_current_and_older_results(folder: Path) -> None:
    runs = read_external(folder).runs
    assert runs["lr2e-4"].scores[("arc_easy", "acc")].value == 0.6
    assert runs["base"].scores[("arc_easy", "acc")].stderr == 0.01
    generated = runs["lr2e-4"].scores[("gsm8k", "exact_match strict-match")]
    assert (generated.value, generated.stderr, generated.items) == (0.2, None, 100)
    assert runs["lr2e-4"].settings["adapter"] == "./outputs/lr2e-4"


def test_trainer_state_is_a_loss_path(folder: Path) -> None:
    run = read_external(folder).runs["lr2e-4"]
    assert len(run.path.train) == 100 and run.path.heldout[-1] == 1.9 and run.path_unit == "steps"
    assert run.settings["learning_rate"] == pytest.approx(2e-4 * 0.99) and run.settings["epochs"] == 2
    path = folder / "lr2e-3" / "trainer_state.json"
    path.write_text(json.dumps(trainer_state([2.6, 2.0], tokens=True)))
    assert read_external(folder).runs["lr2e-3"].path_unit == "tokens"


def test_results_and_items_in_one_folder_are_one_run(tmp_path: Path) -> None:
    write_samples(tmp_path, [1, 0, 1, 1])
    (tmp_path / f"results_{MOMENT}.json").write_text(json.dumps(CURRENT_RESULTS))
    assert set(read_external(tmp_path).runs) == {f"results_{MOMENT}"}


def test_a_colab_folder_of_checkpoints_is_one_run(tmp_path: Path) -> None:
    for step in (250, 500, 1000):
        folder = tmp_path / "outputs" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        history = [{"step": n, "loss": 2.0, "learning_rate": 2e-4} for n in range(1, step + 1, 10)]
        state = {"log_history": history, "max_steps": 1000}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    for source in (tmp_path, tmp_path / "outputs"):
        (run,) = read_external(source).runs.values()
        assert run.name == "outputs" and run.path.train_tokens[-1] == 991 and len(run.files) == 3


def test_any_setting_of_a_study_is_a_setting_and_no_score(tmp_path: Path) -> None:
    names = setting_names()
    (tmp_path / "t.csv").write_text(f"run,{','.join(names)},dataset,peft_type,acc\na,{'1,' * len(names)}big,dora,0.5\n")
    run = read_external(tmp_path / "t.csv").runs["a"]
    assert set(run.settings) == set(names) and set(run.scores) == {("acc", "")}
    assert (run.settings["data"], run.settings["method"]) == ("big", "dora")


def test_columns_that_are_no_scores_are_named(tmp_path: Path) -> None:
    header = "run,lora_dropout,weight_decay,max_seq_length,train_loss,loss,train_runtime,vram_gib,comment,time_travel_acc,acc"
    (tmp_path / "t.csv").write_text(
        f"{header}\na,0.05,0.01,2048,0.9,0.8,100,6.5,nice,0.4,0.6\na,0,0,1,1,1,1,1,,0.5,0.7\n"
    )
    results = read_external(tmp_path / "t.csv")
    assert set(results.runs) == {"a", "a (row 2)"}
    run = results.runs["a"]
    assert run.settings == {"dropout": 0.05, "weight_decay": 0.01, "max_length_tokens": 2048}
    assert set(run.scores) == {("time_travel_acc", ""), ("acc", "")}
    assert set(results.columns) == {"train_loss", "loss", "train_runtime", "vram_gib", "comment"}
    assert "not comparable" in results.columns["train_loss"]
    report.report_external(source=tmp_path / "t.csv", out=tmp_path / "page.html", base=None, title=None)
    assert "vram_gib</span>: a cost or a size" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("x.csv", "", "cannot be read"),
        ("x.csv", "a,b\nfoo,bar\n", "neither settings nor scores"),
        ("x.json", "[1, 2]", "no rows"),
        ("x.json", '{"results": {"t": {"acc,none": "N/A"}}}', "no numbers"),
        ("x.json", '{"results": {"t": "acc"}}', "no numbers"),
        ("x.json", '{"log_history": [{"step": 1}]}', "no loss"),
        ("x.json", "[" * 100_000, "cannot be read"),
        ("x.json", '{"a": 1}', "neither a table"),
        ("x.jsonl", "\n", "no rows"),
        ("x.jsonl", '{"doc_id": 1}\n', "unknown format"),
        ("x.jsonl", '{"doc_id": 1, "resps": []}\n{"a": 1}\n', "mixed with other lines"),
        ("x.jsonl", '{"doc_id": 1, "resps": [], "metrics": ["acc"], "acc": "?"}\n', "no numbers"),
    ],
)
def test_files_that_hold_nothing_are_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    good = {"results": {"t": {"acc,none": 0.5, "acc_stderr,none": 0.1}}}
    (tmp_path / "good.json").write_text(json.dumps(good))
    (tmp_path / name).write_text(content)
    unused = dict(read_external(tmp_path).unused)
    assert words in unused[name]


def test_nothing_at_all_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        read_external(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no run found\. Fix: "):
        read_external(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"no run found \(neither a table of runs.*\)\. Fix: "):
        read_external(tmp_path)


def test_a_nested_file_names_its_runs_and_keeps_error_and_count_with_their_score(tmp_path: Path) -> None:
    score = {"accuracy": 0.41, "stderr": 0.01, "n": 2400}
    runs = [
        {"id": "baseline", "config": {"model": {"name": "small"}}, "metrics": {"mmlu": score}},
        {"id": "tuned", "config": {"model": {"name": "large"}, "lora": {"r": 16}}, "metrics": {"mmlu": score}},
    ]
    (tmp_path / "summary.json").write_text(json.dumps({"experiments": runs}))
    found = read_external(tmp_path).runs
    assert {name: run.settings["model"] for name, run in found.items()} == {"baseline": "small", "tuned": "large"}
    assert set(found["tuned"].scores) == {("mmlu accuracy", "")}
    kept = found["tuned"].scores["mmlu accuracy", ""]
    assert (kept.value, kept.stderr, kept.items) == (0.41, 0.01, 2400)


def test_a_number_of_items_is_no_score(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("run,acc,acc_stderr,acc_n\nbase,0.4,0.02,500\ntuned,0.5,0.02,500\n")
    runs = read_external(tmp_path).runs
    assert set(runs["base"].scores) == {("acc", "")} and runs["base"].scores["acc", ""].items == 500
