"""Runs from elsewhere: tables, trainer states and lm-eval results as others write them, whole and broken."""

import json
import sys
from pathlib import Path

import pytest

import report
from study.errors import UserError
from study.foreign import read_foreign
from study.foreign_page import find_base, judge, missing_parts

TODAY = {
    "results": {
        "arc_easy": {
            "alias": "arc_easy",
            "acc,none": 0.6,
            "acc_stderr,none": 0.01,
            "acc_norm,none": 0.55,
            "acc_norm_stderr,none": 0.01,
        },
        "gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.2, "exact_match_stderr,strict-match": "N/A"},
    },
    "n-samples": {"arc_easy": {"original": 2376, "effective": 2376}, "gsm8k": {"original": 1319, "effective": 100}},
    "config": {"model": "hf", "model_args": "pretrained=meta-llama/Llama-3.2-1B-Instruct,peft=./outputs/lr2e-4"},
}
OLDER = {
    "results": {"arc_easy": {"acc": 0.5, "acc_stderr": 0.01, "acc_norm": 0.5, "acc_norm_stderr": 0.01}},
    "versions": {"arc_easy": 0},
    "config": {"model": "gpt2", "model_args": "pretrained=gpt2"},
}


def trainer_state(heldout: list[float], *, tokens: bool = False) -> dict:
    history = []
    for step in range(1, 101):
        row = {
            "step": step,
            "epoch": step / 50,
            "loss": 2.6 - 0.02 * step,
            "grad_norm": 1.0,
            "learning_rate": 2e-4 * (1 - step / 100),
        }
        history.append(row | ({"num_input_tokens_seen": step * 1000} if tokens else {}))
    for number, loss in enumerate(heldout):
        row = {"step": 100 * number // (len(heldout) - 1), "eval_loss": loss, "eval_runtime": 1.0}
        history.append(row | ({"num_input_tokens_seen": row["step"] * 1000} if tokens else {}))
    return {"global_step": 100, "max_steps": 100, "num_train_epochs": 2, "train_batch_size": 2, "log_history": history}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three runs in folders of their own, as a Colab user downloads them."""
    for name, result in (("base", OLDER), ("lr2e-4", TODAY), ("lr2e-3", OLDER)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "results_2025.json").write_text(json.dumps(result))
    turned = trainer_state([2.6, 1.9, 1.5, 1.4, 1.5, 1.7, 1.9])
    (tmp_path / "runs/lr2e-4/checkpoint-100").mkdir()
    (tmp_path / "runs/lr2e-4/checkpoint-100/trainer_state.json").write_text(json.dumps(turned))
    return tmp_path / "runs"


def test_lm_eval_of_today_and_before(folder: Path) -> None:
    runs = read_foreign(folder).runs
    assert runs["lr2e-4"].scores[("arc_easy", "acc")].value == 0.6
    assert runs["base"].scores[("arc_easy", "acc")].stderr == 0.01
    generated = runs["lr2e-4"].scores[("gsm8k", "exact_match strict-match")]
    assert (generated.value, generated.stderr, generated.items) == (0.2, None, 100)
    assert runs["lr2e-4"].settings["adapter"] == "./outputs/lr2e-4"


def test_scores_are_judged_against_the_base(folder: Path) -> None:
    results = read_foreign(folder)
    base = find_base(results, None)
    rows = {(row.run, row.task, row.metric): row for row in judge(results, base)}
    better = rows[("lr2e-4", "arc_easy", "acc")]
    # z = 0.1 / sqrt(2) / 0.01 = 7.07
    assert better.verdict == "better" and better.p == pytest.approx(1.54e-12, rel=0.01)
    assert rows[("lr2e-3", "arc_easy", "acc")].verdict == "can't tell"
    assert ("lr2e-4", "gsm8k", "exact_match strict-match") not in rows  # the base has no such score


def test_trainer_state_is_a_loss_path(folder: Path) -> None:
    run = read_foreign(folder).runs["lr2e-4"]
    assert len(run.path.train) == 100 and run.path.heldout[-1] == 1.9 and run.path_unit == "steps"
    assert run.settings["learning_rate"] == pytest.approx(2e-4 * 0.99) and run.settings["epochs"] == 2
    path = folder / "lr2e-3" / "trainer_state.json"
    path.write_text(json.dumps(trainer_state([2.6, 2.0], tokens=True)))
    assert read_foreign(folder).runs["lr2e-3"].path_unit == "tokens"


def test_a_table_of_settings_and_scores(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text(
        "Run,LR,lora_r,Batch_Size,seed,arc_easy,arc_easy_stderr,perplexity,runtime\n"
        "baseline,,,,,0.50,0.02,12.0,\n"
        "a,2e-4,16,2,1,0.61,0.02,9.0,100\n"
        "b,2e-3,16,2,2,0.49,0.02,15.5,90\n"
    )
    results = read_foreign(path)
    assert results.runs["a"].settings == {"learning_rate": 2e-4, "rank": 16, "batch": 2, "seed": 1}
    assert set(results.runs["a"].scores) == {("arc_easy", ""), ("perplexity", "")}
    rows = {(row.run, row.task): row for row in judge(results, find_base(results, None))}
    assert rows[("a", "arc_easy")].verdict == "better" and rows[("b", "arc_easy")].verdict == "can't tell"
    assert rows[("a", "perplexity")].verdict == ""  # no error given


def test_the_page_names_what_is_missing(folder: Path) -> None:
    (folder / "notes.json").write_text('{"hello": 1}')
    (folder / "broken.json").write_text("{")
    report.report_foreign(source=folder, out=folder / "out/page.html", base=None, title="My <b>Colab</b> runs")
    text = (folder / "out/page.html").read_text()
    assert "My &lt;b&gt;Colab&lt;/b&gt; runs" in text and "<b>Colab" not in text
    for part in (
        "No answers item by item",
        "No loss path (trainer_state.json) for 1 run",
        "Tokens were not counted",
        "Overfitted",
    ):
        assert part in text
    assert "notes.json" in text and "broken.json" in text
    assert (folder / "out/page_figures/losses.svg").is_file()
    assert text.count("<script>") == 1


def test_without_a_base_nothing_is_claimed(folder: Path) -> None:
    (folder / "base").rename(folder / "first")
    results = read_foreign(folder)
    assert find_base(results, None) is None and judge(results, None) == []
    assert any("cannot be told" in part for part in missing_parts(results, None, []))
    assert find_base(results, "first") == "first"
    with pytest.raises(UserError, match="no run of that name"):
        find_base(results, "nobody")


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("x.csv", "", "cannot be read"),
        ("x.csv", "a,b\nfoo,bar\n", "neither settings nor scores"),
        ("x.json", "[1, 2]", "no rows"),
        ("x.json", '{"results": {"t": {"acc,none": "N/A"}}}', "no numbers"),
        ("x.json", '{"log_history": [{"step": 1}]}', "no loss"),
        ("x.json", "[" * 100_000, "cannot be read"),
        ("x.json", '{"a": 1}', "neither a table"),
    ],
)
def test_files_that_hold_nothing_are_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    good = {"results": {"t": {"acc,none": 0.5, "acc_stderr,none": 0.1}}}
    (tmp_path / "good.json").write_text(json.dumps(good))
    (tmp_path / name).write_text(content)
    unused = dict(read_foreign(tmp_path).unused)
    assert words in unused[name]


def test_nothing_at_all_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_foreign(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        read_foreign(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report.py", "--foreign", str(tmp_path), "--out", str(tmp_path / "o.html")])
    with pytest.raises(UserError):
        report.main()
    assert not (tmp_path / "o.html").exists()


def test_twice_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        report.report_foreign(source=folder, out=tmp_path / name / "page.html", base=None, title=None)
    assert (tmp_path / "a/page.html").read_bytes() == (tmp_path / "b/page.html").read_bytes()
