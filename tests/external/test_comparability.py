"""Results that differ in how they were measured get no verdict, and a sentence with both values."""

import json
from pathlib import Path
from typing import Any

import pytest

from loragrid.external.base_comparison import compare_with_base, find_base
from loragrid.external.reading import read_external
from loragrid.external.sentences import answer, missing_parts, not_compared
from tests.fixtures.external_runs import write_results, write_samples

TUNED = "pretrained=org/small-1b,peft=out/a"


def sentences(source: Path, base: str | None = None) -> list[str]:
    """What is said about the results that are not compared; no comparison of them has a verdict."""
    results = read_external(source)
    base = find_base(results, base)
    rows = compare_with_base(results, base)
    assert not any(row.verdict for row in rows)
    return not_compared(results, base, rows)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"n-shot": {"facts": 5}}, "shots 0 and 5"),
        ({"n-shot": {}, "configs": {"facts": {"num_fewshot": 8}}}, "shots 0 and 8"),
        ({"chat_template": "{{ messages }}"}, "chat template none and “{{ messages }}”"),
        ({"system_instruction": "Be brief."}, "system prompt none and “Be brief.”"),
        ({"versions": {"facts": 2}}, "task version 1 and 2"),
        ({"config": {"model_args": TUNED, "limit": 100}}, "limit none and 100"),
        ({"n-samples": {"facts": {"effective": 100}}}, "items 400 and 100"),
        ({"config": {"model_args": "pretrained=org/small-3b,peft=out/a"}}, "model org/small-1b and org/small-3b"),
        ({"config": {"model_args": f"{TUNED},revision=step9"}}, "revision main and step9"),
        ({"config": {"model_args": "pretrained=org/small-1b"}}, "so nothing was tuned"),
        ({"results": {"facts": {"acc,flexible": 0.7}}}, "metric or filter acc and acc flexible"),
        ({"results": {"facts": {"acc,none": 70.0}}}, "scale 0.5 and 70"),
    ],
)
def test_lm_eval_results_of_other_measurements(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    write_results(tmp_path / "base", 0.5)
    write_results(tmp_path / "tuned", 0.7, **changes)
    (sentence,) = sentences(tmp_path)
    assert words in sentence and sentence.startswith("tuned and base are not compared on facts")
    results = read_external(tmp_path)
    assert "No verdict" in answer(results, compare_with_base(results, "base"), "base")


def test_equal_measurements_are_compared(tmp_path: Path) -> None:
    write_results(tmp_path / "base", 0.5)
    # A mirror in 4 bit is the same model, and a version is a number however it is written.
    arguments = {"pretrained": "mirror/Small-1B-bnb-4bit", "peft": "out/a"}
    write_results(tmp_path / "tuned", 0.7, versions={"facts": "1"}, config={"model_args": arguments, "limit": None})
    (row,) = compare_with_base(read_external(tmp_path), "base")
    assert row.verdict == "adapters differ" and row.improves and not row.refused


@pytest.mark.parametrize(
    "header, base, tuned, words",
    [
        ("num_fewshot,lora_r,acc", "0,,0.5", "5,16,0.7", "shots 0 and 5"),
        ("eval_dataset,lora_r,acc", "a,,0.5", "b,16,0.7", "evaluation data a and b"),
        ("dataset,lora_r,acc", "a,,0.5", "b,16,0.7", "data set a and b"),
        ("model,lora_r,acc", "x/one,,0.5", "x/two,16,0.7", "model x/one and x/two"),
        ("steps,lora_r,final_loss", ",,2.5", "500,16,1.1", "training or held-out loss"),
        ("lora_r,acc", ",0.5", "16,70", "scale 0.5 and 70"),
    ],
)
def test_rows_of_a_table_of_other_measurements(tmp_path: Path, header: str, base: str, tuned: str, words: str) -> None:
    score = header.rsplit(",", 1)[1]
    path = tmp_path / "runs.csv"
    path.write_text(f"name,{header},{score}_stderr\nbase,{base},0.01\nlora,{tuned},0.01\n")
    (sentence,) = sentences(path)
    assert words in sentence


@pytest.mark.parametrize("sign", ["16,,", ",500,", ",,2e-4"])
def test_a_trained_baseline_is_no_base(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(f"name,lora_r,steps,lr,acc,acc_stderr\nbaseline,{sign},0.5,0.01\nb,64,500,2e-4,0.7,0.01\n")
    results = read_external(path)
    assert find_base(results, None) is None
    assert "“baseline” was trained itself" in answer(results, [], None)


def test_two_trained_runs_need_the_same_training(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("name,data,steps,lora_r,acc,acc_stderr\na,x,100,8,0.5,0.01\nb,y,5000,16,0.7,0.01\n")
    (sentence,) = sentences(path, "a")
    assert "data set x and y" in sentence and "steps 100 and 5000" in sentence


def test_equal_answers_ask_for_the_adapter(tmp_path: Path) -> None:
    for name in ("base", "tuned"):
        write_samples(tmp_path / name, [1, 0] * 30)
    (sentence,) = sentences(tmp_path)
    assert sentence.endswith("identical answers on all 60 items: was the adapter loaded?")
    # Other answers that are right and wrong on the same items are a result.
    path = next((tmp_path / "tuned").glob("samples_*"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"resps": [[["y"]]]}) + "\n" for row in rows))
    (row,) = compare_with_base(read_external(tmp_path), "base")
    assert row.verdict == "can't tell"


def test_scores_that_are_equal_to_the_last_digit_ask_for_the_adapter(tmp_path: Path) -> None:
    scores = {name: {"acc,none": 0.41237 + place / 97, "acc_stderr,none": 0.01} for place, name in enumerate("abc")}
    for name in ("base", "tuned"):
        write_results(tmp_path / name, 0.5, results=scores)
    (sentence,) = sentences(tmp_path)
    assert "3 scores are equal to the last digit: was the adapter loaded?" in sentence


def test_losses_of_runs_with_data_of_their_own_are_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("name,data,lora_r,eval_loss,eval_loss_stderr\nbase,,,2.5,0.01\na,x,8,1.5,0.01\nb,y,8,1.2,0.01\n")
    first, second = sentences(path)
    assert "data set x and y: nothing says on whose held-out rows base was measured" in first and "b and base" in second


def test_equal_scores_of_several_seeds_ask_for_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(
        "name,seed,em,f1,acc,acc_stderr\nbase,,0.1,0.2,0.3,0.01\na,1,0.213,0.317,0.411,0.01\nb,2,0.213,0.317,0.411,0.01\n"
    )
    (sentence,) = sentences(path)
    assert "all 3 scores are equal under 2 seeds: was the seed set?" in sentence


def test_what_the_files_leave_open_is_named(tmp_path: Path) -> None:
    write_results(tmp_path / "base", 0.5)
    write_results(tmp_path / "tuned", 0.7, config={"model_args": "pretrained=./out/merged", "limit": None})
    (tmp_path / "tuned" / "a_first.json").write_text((tmp_path / "base" / "results.json").read_text())
    results = read_external(tmp_path)
    missing = missing_parts(results, "base", compare_with_base(results, "base"))
    assert "tuned is the model in ./out/merged: from what it was trained is not stated." in missing
    assert "tuned: several files hold other values of 1 score; the last counts." in missing


def test_a_group_is_measured_as_its_parts_are(tmp_path: Path) -> None:
    results = {
        name: {"acc,none": 0.41, "acc_stderr,none": 0.01} for name in ("all", "half", "part_0", "part_1", "part_2")
    }
    groups = {"all": ["half", "part_2"], "half": ["part_0", "part_1"]}
    for name, shots, gain in (("base", 0, 0.0), ("tuned", 5, 0.2)):
        own = {task: metrics | {"acc,none": 0.41 + gain} for task, metrics in results.items()}
        asked = {"part_0": shots, "part_1": 0, "part_2": 0}
        write_results(tmp_path / name, 0.5, results=own, group_subtasks=groups, **{"n-shot": asked})
    (row,) = [row for row in compare_with_base(read_external(tmp_path), "base") if not row.detail_of]
    assert row.key == ("all", "acc") and row.refused == ("shots 0 and 5",)
    write_results(tmp_path / "tuned", 0.5, results=results, group_subtasks={"all": ["part_2"]})
    (row,) = [row for row in compare_with_base(read_external(tmp_path), "base") if row.key == ("all", "acc")]
    assert "parts of all: 2 and 1 tasks" in row.refused


def test_other_prompts_for_the_same_items(tmp_path: Path) -> None:
    for name in ("base", "tuned"):
        write_samples(tmp_path / name, [1, 0, 1] * 10 if name == "base" else [1] * 30)
        path = next((tmp_path / name).glob("samples_*"))
        rows = [json.loads(line) | {"prompt_hash": f"{name}"} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (sentence,) = sentences(tmp_path)
    assert "prompts: 30 of 30 items were asked in other words or with other examples" in sentence
