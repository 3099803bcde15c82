"""Runs from elsewhere: tables, trainer states and lm-eval results as others write them, whole and broken."""

import json
import sys
from pathlib import Path

import pytest

import report
from loragrid.errors import UserError
from loragrid.external.base_comparison import find_base, judge, missing_parts
from loragrid.external.reading import read_external
from loragrid.external.sections import external_sections

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


@pytest.mark.parametrize(
    "heldout, rising, cause",
    [
        ([1.20, 1.26, 1.41], False, "Overfitted"),
        ([1.20, 1.10, 1.05, 1.12, 1.30], False, "Overfitted"),
        ([1.20, 1.10, 1.05], False, None),
        ([1.20, 1.26, 1.41], True, "Diverged"),
    ],
)
def test_evaluations_that_begin_after_an_epoch_are_not_taken_for_the_untrained_model(
    tmp_path: Path, heldout: list[float], rising: bool, cause: str | None
) -> None:
    """What a Trainer leaves that evaluates after every epoch, and not before the first."""
    state = trainer_state([])
    for row in state["log_history"]:
        row["loss"] = 0.6 + 0.02 * row["step"] if rising else row["loss"]
    for number, loss in enumerate(heldout, start=1):
        state["log_history"].append({"step": 100 * number // len(heldout), "eval_loss": loss})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trainer_state.json").write_text(json.dumps(state))
    causes = external_sections(read_external(tmp_path / "run"), None, "t", tmp_path)["causes"]
    assert [found["name"] for row in causes for found in row["causes"]] == ([cause] if cause else [])


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
    runs = read_external(folder).runs
    assert runs["lr2e-4"].scores[("arc_easy", "acc")].value == 0.6
    assert runs["base"].scores[("arc_easy", "acc")].stderr == 0.01
    generated = runs["lr2e-4"].scores[("gsm8k", "exact_match strict-match")]
    assert (generated.value, generated.stderr, generated.items) == (0.2, None, 100)
    assert runs["lr2e-4"].settings["adapter"] == "./outputs/lr2e-4"


def test_scores_are_judged_against_the_base(folder: Path) -> None:
    results = read_external(folder)
    base = find_base(results, None)
    rows = {(row.run, *row.key): row for row in judge(results, base)}
    better = rows[("lr2e-4", "arc_easy", "acc")]
    # z = 0.1 / sqrt(2) / 0.01 = 7.07
    assert better.verdict == "better" and better.p == pytest.approx(1.54e-12, rel=0.01)
    assert rows[("lr2e-3", "arc_easy", "acc")].verdict == "can't tell"
    assert ("lr2e-4", "gsm8k", "exact_match strict-match") not in rows  # the base has no such score


def test_trainer_state_is_a_loss_path(folder: Path) -> None:
    run = read_external(folder).runs["lr2e-4"]
    assert len(run.path.train) == 100 and run.path.heldout[-1] == 1.9 and run.path_unit == "steps"
    assert run.settings["learning_rate"] == pytest.approx(2e-4 * 0.99) and run.settings["epochs"] == 2
    path = folder / "lr2e-3" / "trainer_state.json"
    path.write_text(json.dumps(trainer_state([2.6, 2.0], tokens=True)))
    assert read_external(folder).runs["lr2e-3"].path_unit == "tokens"


def test_a_table_of_settings_and_scores(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text(
        "Run,LR,lora_r,Batch_Size,seed,arc_easy,arc_easy_stderr,perplexity,runtime\n"
        "baseline,,,,,0.50,0.02,12.0,\n"
        "a,2e-4,16,2,1,0.61,0.02,9.0,100\n"
        "b,2e-3,16,2,2,0.49,0.02,15.5,90\n"
    )
    results = read_external(path)
    assert results.runs["a"].settings == {"learning_rate": 2e-4, "rank": 16, "batch": 2, "seed": 1}
    assert set(results.runs["a"].scores) == {("arc_easy", ""), ("perplexity", "")}
    rows = {(row.run, row.key[0]): row for row in judge(results, find_base(results, None))}
    assert rows[("a", "arc_easy")].verdict == "better" and rows[("b", "arc_easy")].verdict == "can't tell"
    assert rows[("a", "perplexity")].verdict == ""  # no error given


@pytest.mark.parametrize(
    "column, higher",
    [
        ("answer_acc", True),
        ("apple_qa", True),
        ("glossary", True),
        ("wikitext_ppl", False),
        ("eval/loss", False),
        ("bits_per_byte", False),
        ("wer", False),
        ("error_detection_acc", None),
    ],
)
def test_which_way_is_better_is_read_off_whole_words(tmp_path: Path, column: str, higher: bool | None) -> None:
    (tmp_path / "t.csv").write_text(f"run,lr,{column},{column}_stderr\nbase,,0.5,0.01\na,1e-4,0.6,0.01\n")
    results = read_external(tmp_path / "t.csv")
    (row,) = judge(results, find_base(results, None))
    assert row.higher is higher
    assert row.verdict == {True: "better", False: "worse", None: ""}[higher]


def test_lm_evals_own_direction_comes_first(tmp_path: Path) -> None:
    for name, value in (("base", 0.5), ("tuned", 0.4)):
        metrics = {"oddity,none": value, "oddity_stderr,none": 0.01}
        content = {"results": {"answers": metrics}, "higher_is_better": {"answers": {"oddity": False}}}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (row,) = judge(read_external(tmp_path), "base")
    assert row.verdict == "better"


def write_samples(folder: Path, answers: list[int], *, task: str = "arc_easy", first_doc: int = 0) -> None:
    """A samples file of lm-eval: an item a line."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "doc_id": first_doc + number,
            "doc_hash": f"h{number}",
            "doc": {"q": "?"},
            "resps": [[["x"]]],
            "filter": "none",
        }
        | {"filtered_resps": ["x"], "metrics": ["acc"], "acc": float(value)}
        for number, value in enumerate(answers)
    ]
    path = folder / f"samples_{task}_2025-10-01T10-20-30.123456.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_items_of_lm_eval_are_paired(tmp_path: Path) -> None:
    """20 of 100 items are gained and 4 lost: by the exact McNemar test p = 2·P(X ≤ 4), X ~ Binomial(24, ½), = 0.00154."""
    base = [1] * 40 + [0] * 60
    tuned = [0] * 4 + [1] * 36 + [1] * 20 + [0] * 40
    write_samples(tmp_path / "base", base)
    write_samples(tmp_path / "tuned", tuned)
    results = read_external(tmp_path)
    assert set(results.runs) == {"base", "tuned"}
    assert results.runs["tuned"].scores[("arc_easy", "acc")].value == 0.56
    (row,) = judge(results, "base")
    assert row.method == "exact McNemar" and row.p == pytest.approx(0.00154, rel=0.01) and row.verdict == "better"
    assert not any("item by item" in part for part in missing_parts(results, "base", [row]))
    write_samples(tmp_path / "tuned", tuned, first_doc=1)  # other items: no pairs
    (row,) = judge(read_external(tmp_path), "base")
    assert row.method == "unpaired z"


def test_items_that_are_not_those_of_the_score_are_not_used(tmp_path: Path) -> None:
    for name, value in (("base", 0.5), ("tuned", 0.7)):
        write_samples(tmp_path / name, [1, 0] * 20)
        content = {"results": {"arc_easy": {"acc,none": value, "acc_stderr,none": 0.01}}}
        (tmp_path / name / "results_2025-10-01T10-20-30.123456.json").write_text(json.dumps(content))
    (row,) = judge(read_external(tmp_path), "base")
    assert row.method == "unpaired z" and row.difference == pytest.approx(0.2)


def test_results_and_items_in_one_folder_are_one_run(tmp_path: Path) -> None:
    write_samples(tmp_path, [1, 0, 1, 1])
    (tmp_path / "results_2025-10-01T10-20-30.123456.json").write_text(json.dumps(TODAY))
    assert set(read_external(tmp_path).runs) == {"results_2025-10-01T10-20-30.123456"}


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


def test_a_tuned_run_is_never_taken_for_the_base(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("run,lr,acc,acc_stderr\nbase case,2e-4,0.6,0.01\nbase_lr2e-3,2e-3,0.5,0.01\nx,1e-4,0.5,0.01\n")
    assert find_base(read_external(path), None) is None
    path.write_text("run,lr,acc,acc_stderr\nbase case,2e-4,0.6,0.01\nbase model,,0.5,0.01\n")
    assert find_base(read_external(path), None) == "base model"
    state = tmp_path / "runs" / "base" / "trainer_state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps(trainer_state([2.6, 1.9])))
    assert find_base(read_external(tmp_path / "runs"), None) is None


def test_columns_that_are_no_scores_are_named(tmp_path: Path) -> None:
    header = "run,lora_dropout,weight_decay,max_seq_length,train_loss,loss,train_runtime,vram_gib,comment,time_travel_acc,acc"
    (tmp_path / "t.csv").write_text(
        f"{header}\na,0.05,0.01,2048,0.9,0.8,100,6.5,nice,0.4,0.6\na,0,0,1,1,1,1,1,,0.5,0.7\n"
    )
    results = read_external(tmp_path / "t.csv")
    assert set(results.runs) == {"a", "a (row 2)"}
    run = results.runs["a"]
    assert run.settings == {"dropout": 0.05, "weight_decay": 0.01, "max_length": 2048}
    assert set(run.scores) == {("time_travel_acc", ""), ("acc", "")}
    assert set(results.columns) == {"train_loss", "loss", "train_runtime", "vram_gib", "comment"}
    assert "not comparable" in results.columns["train_loss"]
    report.report_external(source=tmp_path / "t.csv", out=tmp_path / "page.html", base=None, title=None)
    assert "vram_gib</span>: a cost or a size" in (tmp_path / "page.html").read_text()


def test_hostile_names_are_shown_and_never_run(tmp_path: Path) -> None:
    hostile = '<script>alert(1)</script><!--<script> "onload="x \u202egnirts'
    row = {"run": hostile, hostile: 0.5, "model": hostile, "odd": hostile}
    (tmp_path / "t.json").write_text(json.dumps([row, row | {"run": "base"}]))
    results = {"results": {hostile: {f"{hostile}acc,none": 0.5, f"{hostile}acc_stderr,none": 0.1}}}
    for name in ("base", "<script>b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    (tmp_path / "<script>.json").write_text("{")
    report.report_external(source=tmp_path, out=tmp_path / "page.html", base="base", title=hostile)
    text = (tmp_path / "page.html").read_text()
    assert text.count("<script>") == 1 and "<!--" not in text and "\u202e" not in text
    assert "&lt;script&gt;alert(1)" in text and "[U+202E]" in text


def test_the_page_names_what_is_missing(folder: Path) -> None:
    (folder / "notes.json").write_text('{"hello": 1}')
    (folder / "broken.json").write_text("{")
    report.report_external(source=folder, out=folder / "out/page.html", base=None, title="My <b>Colab</b> runs")
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
    results = read_external(folder)
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
    unused = dict(read_external(tmp_path).unused)
    assert words in unused[name]


def test_nothing_at_all_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_external(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        read_external(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report.py", "--foreign", str(tmp_path), "--out", str(tmp_path / "o.html")])
    with pytest.raises(UserError):
        report.main()
    assert not (tmp_path / "o.html").exists()


def test_twice_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        report.report_external(source=folder, out=tmp_path / name / "page.html", base=None, title=None)
    assert (tmp_path / "a/page.html").read_bytes() == (tmp_path / "b/page.html").read_bytes()
