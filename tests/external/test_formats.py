"""Files of other tools, with made-up values: logs, exports, nested settings and metrics."""

import json
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.external.base_comparison import find_base
from loragrid.external.log_findings import losses_not_compared, run_causes
from loragrid.external.reading import read_external
from loragrid.external.runs import ExternalRun

STEPS = range(10, 110, 10)


def one_run(source: Path) -> ExternalRun:
    (run,) = read_external(source).runs.values()
    return run


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def state(rows: list[dict[str, Any]]) -> dict[str, Any]:
    train = [{"step": step, "loss": 3 - step / 50, "learning_rate": 1e-4} for step in STEPS]
    return {"log_history": [*train, *rows], "max_steps": 100, "num_train_epochs": 2}


def test_a_single_logged_rate_is_no_setting(tmp_path: Path) -> None:
    """It may be that of a schedule's end."""
    for name, rates in (("one", [4e-8]), ("two", [2e-4, 4e-8])):
        rows = [{"step": step + 1, "loss": 1.0, "learning_rate": rate} for step, rate in enumerate(rates)]
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    runs = read_external(tmp_path).runs
    assert "learning_rate" not in runs["one"].settings and runs["two"].settings["learning_rate"] == 2e-4
    assert runs["two"].rate_from_log and not runs["one"].rate_from_log


def test_a_trainer_state_holds_scores_and_several_evaluation_sets(tmp_path: Path) -> None:
    rows = [{"step": 50, "eval_code_loss": 1.5, "eval_law_loss": 2.5, "eval_wer": 40.0, "eval_runtime": 3.0}]
    rows += [{"step": 100, "eval_code_loss": 1.2, "eval_law_loss": 2.9, "eval_wer": 30.0, "eval_runtime": 3.0}]
    rows += [{"epoch": 2.0, "predict_rouge-1": 41.0, "predict_samples_per_second": 4.0}]
    rows += [{"step": 100, "train_loss": 2.0, "train_runtime": 60.0, "total_flos": 1e15}]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "trainer_state.json").write_text(json.dumps(state(rows)))
    results = read_external(tmp_path)
    run = results.runs["a"]
    values = {name: score.value for (name, _), score in run.scores.items()}
    assert values == {"eval_code_loss": 1.2, "eval_law_loss": 2.9, "eval_wer": 30.0, "predict_rouge-1": 41.0}
    assert results.higher_is_better(("eval_wer", "")) is False
    assert results.higher_is_better(("predict_rouge-1", "")) is True
    assert run.path.heldout.tolist() == [1.5, 1.2] and len(run.path.train) == 10
    assert run.curves["eval_law_loss"].values.tolist() == [2.5, 2.9]
    assert run.scores["eval_wer", ""].conditions == {"steps": 100}


def test_trls_counts_of_tokens_are_places(tmp_path: Path) -> None:
    history = [{"step": step, "loss": 2.0, "num_tokens": step * 900.0} for step in STEPS]
    history.append({"step": 100, "eval_loss": 1.5, "eval_num_tokens": 90000.0})
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    run = one_run(tmp_path)
    assert run.path_unit == "tokens" and run.path.heldout_tokens.tolist() == [90000.0]


@pytest.mark.parametrize("last, name", [(30.0, "Overconfident"), (55.0, "Overfitted")])
def test_a_loss_that_turns_up_is_no_loss_of_skill(tmp_path: Path, last: float, name: str) -> None:
    losses, errors = (2.0, 1.0, 1.3, 1.6), (60.0, 40.0, 35.0, last)
    rows = [{"step": 25 * n, "eval_loss": a, "eval_cer": b} for n, (a, b) in enumerate(zip(losses, errors), start=1)]
    (tmp_path / "trainer_state.json").write_text(json.dumps(state(rows)))
    ((cause,),) = [row["causes"] for row in run_causes(read_external(tmp_path))]
    assert cause.name == name and f"eval cer from 40.0 to {last:.1f}" in cause.evidence
    assert ("confidence, not skill" in cause.evidence) is (name == "Overconfident")


def test_llama_factory(tmp_path: Path) -> None:
    rows = [{"current_steps": step, "total_steps": 100, "loss": 2.0, "lr": 1e-4, "percentage": step} for step in STEPS]
    rows.append({"current_steps": 100, "total_steps": 100, "eval_loss": 1.4, "elapsed_time": "0:01:00"})
    write_lines(tmp_path / "sft" / "trainer_log.jsonl", rows)
    (tmp_path / "sft" / "all_results.json").write_text('{"epoch": 1.0, "eval_loss": 1.4, "predict_bleu-4": 20.5}')
    (tmp_path / "sft" / "train.yaml").write_text(
        "model_name_or_path: org/m\nfinetuning_type: lora\nlora_rank: 8\ndataset: poems\nlearning_rate: 1.0e-4\n"
    )
    run = one_run(tmp_path)
    assert run.name == "sft" and len(run.path.train) == 10 and run.path.heldout.tolist() == [1.4]
    assert (run.settings["rank"], run.settings["data"], run.settings["method"]) == (8, "poems", "lora")
    assert {name for name, _ in run.scores} == {"eval_loss", "predict_bleu-4"} and run.trained()


def test_axolotl(tmp_path: Path) -> None:
    (tmp_path / "out" / "checkpoint-100").mkdir(parents=True)
    (tmp_path / "out" / "checkpoint-100" / "trainer_state.json").write_text(json.dumps(state([])))
    (tmp_path / "out" / "config.yml").write_text(
        "base_model: org/m\nadapter: qlora\nlora_r: 16\nmicro_batch_size: 2\nnum_epochs: 3\nlearning_rate: 2e-4\n"
        "datasets:\n  - path: org/poems\n    type: alpaca\n"
    )
    run = one_run(tmp_path)
    expected = {"model": "org/m", "method": "qlora", "rank": 16, "batch": 2, "data": "org/poems"}
    assert expected.items() <= run.settings.items() and run.path is not None


def test_tinker_cookbook(tmp_path: Path) -> None:
    # Its num_tokens is that of one batch, and no place in the run.
    rows = [
        {"step": n, "train_mean_nll": 2 - n / 20, "learning_rate": 1e-4, "num_tokens": 500 + n % 3} for n in range(20)
    ]
    rows[10]["test/nll"], rows[19]["test/nll"] = 1.7, 1.4
    write_lines(tmp_path / "run1" / "metrics.jsonl", rows)
    config = {"model_name": "org/m", "lora_rank": 32, "dataset_builder": {"common_config": {"batch_size": 128}}}
    (tmp_path / "run1" / "config.json").write_text(json.dumps(config))
    run = one_run(tmp_path)
    assert run.path_unit == "steps" and run.path.heldout.tolist() == [1.7, 1.4] and len(run.path.train) == 20
    assert (run.settings["rank"], run.settings["model"], run.settings["batch"]) == (32, "org/m", 128)


def test_pefts_method_comparison(tmp_path: Path) -> None:
    steps = [{"step": n, "valid accuracy": 0.3 + n / 1000, "train loss": 1.0, "train time": 3.0} for n in (50, 100)]
    steps.append({"step": 100, "test accuracy": 0.45, "train loss": 1.0, "train total tokens": 9000})
    content = {
        "run_info": {
            "experiment_name": "lora/small-rank4",
            "train_config": {"model_id": "org/m", "max_steps": 100, "seed": 0, "optimizer_kwargs": {"lr": 1e-4}},
            "peft_config": {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q", "v"]},
        },
        "train_info": {"cuda_memory_max": 5, "num_trainable_params": 90, "metrics": steps},
        "meta_info": {"package_info": {"peft-version": "1"}, "system_info": {"gpu": "L40S"}},
    }
    (tmp_path / "results").mkdir()
    for rank in (4, 8):
        content["run_info"]["experiment_name"] = f"lora/small-rank{rank}"
        content["run_info"]["peft_config"]["r"] = rank
        (tmp_path / "results" / f"lora--small-rank{rank}.json").write_text(json.dumps(content))
    results = read_external(tmp_path)
    assert set(results.runs) == {"lora/small-rank4", "lora/small-rank8"}
    run = results.runs["lora/small-rank8"]
    assert {name: score.value for (name, _), score in run.scores.items()} == {
        "valid accuracy": 0.4,
        "test accuracy": 0.45,
    }
    assert (run.settings["rank"], run.settings["learning_rate"], run.settings["target_modules"]) == (8, 1e-4, "q, v")
    assert len(run.path.train) == 3 and not len(run.path.heldout)


def test_wandb_exports_of_a_chart_and_of_a_table_of_runs(tmp_path: Path) -> None:
    lines = ['"Step","a - eval/loss","a - eval/loss__MIN","a - eval/loss__MAX","b - eval/loss"']
    lines += [f"{step},{2 - step / 100},0,9,{3 - step / 100}" for step in STEPS]
    (tmp_path / "chart.csv").write_text("\n".join(lines))
    results = read_external(tmp_path)
    assert set(results.runs) == {"a", "b"} and results.runs["b"].path.heldout[-1] == 2.0
    (tmp_path / "chart.csv").write_text(
        '"Name","State","Created","Runtime","learning_rate","lora_r","_step","eval/loss","train/loss","eval/accuracy"\n'
        '"a","finished","2025-01-01","90","0.0001","8","500","1.2","0.9","0.61"\n'
        '"b","finished","2025-01-01","95","0.0002","8","500","1.1","0.8","0.64"\n'
        '"c","crashed","2025-01-01","9","0.02","8","20","-Infinity","NaN",""\n'
    )
    results = read_external(tmp_path)
    assert {name for name, _ in results.runs["b"].scores} == {"eval/loss", "eval/accuracy"}
    assert results.runs["b"].settings == {"learning_rate": 0.0002, "rank": 8, "steps": 500}
    assert "train/loss" in results.columns and "runtime" in results.columns
    assert results.columns["eval/loss"] == "NaN or infinite in a run: no score there"


def test_wandb_folder_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "config.yaml").write_text("_wandb:\n  value: {x: 1}\nlora_r:\n  desc: null\n  value: 8\n")
    (tmp_path / "run-1" / "wandb-summary.json").write_text('{"eval/acc": 0.5, "_runtime": 9, "_step": 40}')
    run = one_run(tmp_path)
    assert run.settings["rank"] == 8 and run.settings["steps"] == 40 and set(run.scores) == {("eval/acc", "")}


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_tensorboard_exports(tmp_path: Path, suffix: str) -> None:
    for tag, start in (("train_loss", 3.0), ("eval_loss", 2.5)):
        rows = [[1700000000.5 + step, step, start - step / 100] for step in STEPS]
        text = json.dumps(rows)
        if suffix == "csv":
            text = "Wall time,Step,Value\n" + "\n".join(",".join(map(str, row)) for row in rows)
        (tmp_path / f"run-exp1-tag-{tag}.{suffix}").write_text(text)
    run = one_run(tmp_path)
    assert run.name == "exp1" and len(run.path.train) == 10 and run.path.heldout[-1] == 1.5


@pytest.mark.parametrize(
    "header, rows",
    [
        ("step,loss,val_loss", ["10,2.0,", "20,1.8,1.9", "30,1.5,1.7"]),
        ("epoch,train_loss,val_loss", ["1,2.0,2.0", "2,1.8,1.9", "3,1.5,1.7"]),
        (",step,loss,val_loss", ["0,10,2.0,", "1,20,1.8,1.9", "2,30,1.5,1.7"]),
    ],
)
def test_a_log_of_steps_is_a_curve_and_no_table_of_runs(tmp_path: Path, header: str, rows: list[str]) -> None:
    (tmp_path / "log.csv").write_text("\n".join([header, *rows]))
    run = one_run(tmp_path / "log.csv")
    assert len(run.path.train) == 3 and run.path.heldout[-1] == 1.7
    assert run.path_unit == ("epochs" if "epoch" in header else "steps")


def test_a_log_of_several_runs_in_one_table(tmp_path: Path) -> None:
    rows = [f"{name},{step},{2 - step / 100}" for name in ("a", "b") for step in STEPS]
    (tmp_path / "log.csv").write_text("\n".join(["run,step,eval_loss", *rows]))
    results = read_external(tmp_path)
    assert [len(results.runs[name].path.heldout) for name in ("a", "b")] == [10, 10]


@pytest.mark.parametrize("column", ["", "Unnamed: 0", "index", "level_0"])
def test_a_pandas_index_is_no_score(tmp_path: Path, column: str) -> None:
    (tmp_path / "t.csv").write_text(f"{column},name,rank,acc\n0,base,,0.5\n1,a,8,0.6\n")
    results = read_external(tmp_path)
    assert all(set(run.scores) == {("acc", "")} for run in results.runs.values())
    # An index of names names the runs.
    (tmp_path / "t.csv").write_text(f"{column},rank,acc\nbase,,0.5\na,8,0.6\n")
    assert set(read_external(tmp_path).runs) == {"base", "a"}


@pytest.mark.parametrize(
    "content",
    [
        {"name": {"0": "base", "1": "a"}, "rank": {"0": None, "1": 8}, "acc": {"0": 0.5, "1": 0.6}},
        {"columns": ["name", "rank", "acc"], "index": [0, 1], "data": [["base", None, 0.5], ["a", 8, 0.6]]},
        {
            "schema": {},
            "data": [{"index": 0, "name": "base", "acc": 0.5}, {"index": 1, "name": "a", "r": 8, "acc": 0.6}],
        },
        [
            {"name": "base", "metrics": {"acc": 0.5}},
            {"name": "a", "config": {"lora": {"r": 8}}, "metrics": {"acc": 0.6}},
        ],
        {"base": {"acc": 0.5}, "a": {"settings": {"rank": 8}, "acc": "60%"}},
        {"runs": [{"name": "base", "acc": 0.5}, {"name": "a", "rank": "8", "acc": 0.6}]},
    ],
)
def test_nested_json_and_data_frames_of_several_runs(tmp_path: Path, content: Any) -> None:
    (tmp_path / "t.json").write_text(json.dumps(content))
    results = read_external(tmp_path)
    assert set(results.runs) == {"base", "a"} and find_base(results, None) == "base"
    run = results.runs["a"]
    assert run.settings["rank"] == 8 and [score.value for score in run.scores.values()] == [0.6]


def test_nested_json_of_one_run(tmp_path: Path) -> None:
    content = {
        "run_name": "mine",
        "config": {"lora": {"r": 8, "alpha": 16}, "optimizer": {"lr": 1e-4}},
        "metrics": {"mmlu": {"acc": {"value": 0.5, "stderr": 0.02}}, "tokens_per_second": 90, "train_loss": 0.4},
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    results = read_external(tmp_path)
    run = results.runs["mine"]
    assert run.settings == {"rank": 8, "alpha": 16, "learning_rate": 1e-4}
    assert {name: (score.value, score.stderr) for (name, _), score in run.scores.items()} == {"mmlu acc": (0.5, 0.02)}


def test_a_table_with_a_row_per_task(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "name,task,metric,value,stderr,n\nbase,t1,acc,0.5,0.05,100\nbase,t2,acc,0.4,0.05,100\na,t1,acc,0.6,0.05,100\n"
    )
    results = read_external(tmp_path)
    score = results.runs["base"].scores["t2 acc", ""]
    assert (score.value, score.stderr, score.items) == (0.4, 0.05, 100) and set(results.runs) == {"base", "a"}


def test_right_and_all_items_are_an_accuracy(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,lora_r,correct,total\nbase,,5,100\na,8,0,100\n")
    score = read_external(tmp_path).runs["base"].scores["accuracy", ""]
    assert (score.value, score.items) == (0.05, 100)


def test_settings_alone_are_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("learning_rate: 1e-4\nlora_r: 8\n")
    with pytest.raises(UserError, match="settings of a run without losses or scores"):
        read_external(tmp_path)
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    (tmp_path / "good.json").write_text('{"results": {"t": {"acc,none": 0.5}}}')
    assert "cannot be read" in dict(read_external(tmp_path).unused)["broken.yaml"]


def test_losses_of_other_kinds_and_lengths_are_named(tmp_path: Path) -> None:
    write_lines(tmp_path / "a" / "metrics.jsonl", [{"step": step, "loss": 2.0} for step in STEPS])
    write_lines(tmp_path / "b" / "metrics.jsonl", [{"step": 9 * step, "loss": 2.0, "eval_loss": 1.9} for step in STEPS])
    first, second = losses_not_compared(list(read_external(tmp_path).runs.values()))
    assert first.startswith("a logged training loss only and b held-out loss")
    assert "from 100 steps (a) to 900 (b)" in second


def test_lm_eval_groups_filters_and_missing_errors(tmp_path: Path) -> None:
    content = {
        "results": {
            "g": {"acc,none": 0.5, "acc_stderr,none": "N/A", "alias": "g"},
            "t": {"em,strict": 0.1, "em,flex": 0.2},
        },
        "groups": {"g": {"acc,none": 0.5, "acc_stderr,none": 0.01}},
        "group_subtasks": {"g": ["t"], "t": []},
    }
    (tmp_path / "r.json").write_text(json.dumps(content))
    run = one_run(tmp_path)
    assert set(run.scores) == {("g", "acc"), ("t", "em strict"), ("t", "em flex")} and run.groups == {"g": ["t"]}
    assert run.scores["g", "acc"].stderr == 0.01


def test_lightevals_tasks_name_their_shots(tmp_path: Path) -> None:
    content = {"config_general": {}, "results": {"set|arc:easy|25|0": {"acc": 0.5, "acc_stderr": 0.01}}, "versions": {}}
    (tmp_path / "r.json").write_text(json.dumps(content))
    assert one_run(tmp_path).scores["set|arc:easy", "acc"].conditions["shots"] == 25


def test_rows_without_names_are_called_after_a_column_of_texts(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("model,method,accuracy,stderr\norg/m,base,54.2%,0.01\norg/m,lora,60.1%,0.01\n")
    results = read_external(tmp_path)
    assert find_base(results, None) == "base" and not results.runs["base"].trained()
    score = results.runs["lora"].scores["accuracy", ""]
    assert (score.value, score.stderr) == (pytest.approx(0.601), 0.01)


@pytest.mark.parametrize(
    "content", [{"columns": ["a"], "data": 5}, {"results": [1], "log_history": "x"}, [[1, 2]], "x"]
)
def test_odd_json_is_one_line(tmp_path: Path, content: Any) -> None:
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"no run found \(.*\)\. Fix: "):
        read_external(tmp_path)


@pytest.mark.parametrize("empty", ["", "No log"])
def test_a_notebooks_table_of_steps(tmp_path: Path, empty: str) -> None:
    (tmp_path / "log.csv").write_text(
        f"Step,Training Loss,Validation Loss,Accuracy\n100,{empty},1.9,0.5\n200,1.5,1.7,0.6\n300,{empty},1.6,0.6\n"
    )
    results = read_external(tmp_path / "log.csv")
    (run,) = results.runs.values()
    # An empty cell is no NaN, which would be a run that diverged.
    assert run.path.train.tolist() == [1.5] and run.path.heldout.tolist() == [1.9, 1.7, 1.6]
    assert "accuracy" in results.columns and not run_causes(results)


def test_rows_of_other_ranks_are_runs_and_no_steps(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("step,lora_r,acc\n100,8,0.5\n200,16,0.6\n300,32,0.7\n")
    results = read_external(tmp_path)
    assert [run.settings for run in results.runs.values()] == [
        {"steps": 100 * n, "rank": r} for n, r in ((1, 8), (2, 16), (3, 32))
    ]


def test_unknown_settings_count_where_runs_differ_in_them(tmp_path: Path) -> None:
    for name, waves in (("base", 0), ("lora", 50)):
        config = {"waves": waves, "loss_weight": 0.5, "wide": 3}
        (tmp_path / f"{name}.json").write_text(json.dumps({"config": config, "metrics": {"acc": 0.5}}))
    run = read_external(tmp_path).runs["lora"]
    assert run.settings == {"waves": 50} and set(run.scores) == {("acc", "")}
    # Runs may be called like parts of a configuration.
    (tmp_path / "base.json").write_text(json.dumps({"base": {"acc": 0.5}, "lora": {"acc": 0.6}}))
    assert set(read_external(tmp_path / "base.json").runs) == {"base", "lora"}


def test_odd_items_of_lm_eval_are_left_out(tmp_path: Path) -> None:
    row = {"doc_id": 0, "resps": [], "metrics": [{"a": 1}, "acc"], "acc": 1.0}
    write_lines(tmp_path / "a" / "samples_t.jsonl", [row, row | {"doc_id": 1, "metrics": 5, "acc": 0}])
    run = one_run(tmp_path)
    assert run.items == {("t", "acc"): {"0 ": 1.0, "1 ": 0.0}}
