"""External runs against their base: which run is the base, paired and unpaired tests, directions of scores."""

import json
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.external.base_comparison import compare_with_base, find_base
from loragrid.external.reading import read_external
from loragrid.external.sections import missing_parts
from tests.fixtures.external_runs import MOMENT, trainer_state, write_samples


def test_scores_are_compared_with_the_base(folder: Path) -> None:
    results = read_external(folder)
    base = find_base(results, None)
    rows = {(row.run, *row.key): row for row in compare_with_base(results, base)}
    gained = rows[("lr2e-4", "arc_easy", "acc")]
    # z = 0.1 / sqrt(2) / 0.01 = 7.07
    assert (
        gained.verdict == "adapters differ" and gained.improves and gained.test.p == pytest.approx(1.54e-12, rel=0.01)
    )
    assert rows[("lr2e-3", "arc_easy", "acc")].verdict == "can't tell"
    assert ("lr2e-4", "gsm8k", "exact_match strict-match") not in rows  # the base has no such score


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
    rows = {(row.run, row.key[0]): row for row in compare_with_base(results, find_base(results, None))}
    assert rows[("a", "arc_easy")].verdict == "adapters differ" and rows[("b", "arc_easy")].verdict == "can't tell"
    assert rows[("a", "perplexity")].verdict == ""  # no error given


@pytest.mark.parametrize(
    "column, higher",
    [
        ("answer_acc", True),
        ("gsm8k", True),
        ("apple_qa", None),
        ("glossary", None),
        ("refusal_rate", None),
        ("accuracy_drop", None),
        ("non_toxicity", None),
        ("toxicity", False),
        ("hallucination_rate", False),
        ("wikitext_ppl", False),
        ("eval/loss", False),
        ("bits_per_byte", False),
        ("wer", False),
        ("error_detection_acc", None),
    ],
)
def test_the_better_direction_is_read_off_whole_words(tmp_path: Path, column: str, higher: bool | None) -> None:
    (tmp_path / "t.csv").write_text(f"run,lr,{column},{column}_stderr\nbase,,0.5,0.01\na,1e-4,0.6,0.01\n")
    results = read_external(tmp_path / "t.csv")
    (row,) = compare_with_base(results, find_base(results, None))
    assert row.higher_is_better is higher
    assert row.verdict == ("" if higher is None else "adapters differ")
    assert row.improves is (higher is True)


def test_lm_evals_own_direction_comes_first(tmp_path: Path) -> None:
    for name, value in (("base", 0.5), ("tuned", 0.4)):
        metrics = {"oddity,none": value, "oddity_stderr,none": 0.01}
        content = {"results": {"answers": metrics}, "higher_is_better": {"answers": {"oddity": False}}}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (row,) = compare_with_base(read_external(tmp_path), "base")
    assert row.verdict == "adapters differ" and row.improves


def test_items_of_lm_eval_are_paired(tmp_path: Path) -> None:
    """20 of 100 items are gained and 4 lost: by the exact McNemar test p = 2·P(X ≤ 4), X ~ Binomial(24, ½), = 0.00154."""
    base = [1] * 40 + [0] * 60
    tuned = [0] * 4 + [1] * 36 + [1] * 20 + [0] * 40
    write_samples(tmp_path / "base", base)
    write_samples(tmp_path / "tuned", tuned)
    results = read_external(tmp_path)
    assert set(results.runs) == {"base", "tuned"}
    assert results.runs["tuned"].scores[("arc_easy", "acc")].value == 0.56
    (row,) = compare_with_base(results, "base")
    assert (
        row.test.method == "exact McNemar"
        and row.test.p == pytest.approx(0.00154, rel=0.01)
        and row.verdict == "adapters differ"
    )
    assert not any("item by item" in part for part in missing_parts(results, "base", [row]))
    write_samples(tmp_path / "tuned", tuned, first_doc=1)  # other items: no pairs
    (row,) = compare_with_base(read_external(tmp_path), "base")
    assert row.test is None and row.refused == ("items 100 and 100, of which 0 are the same",)


def test_items_that_are_not_those_of_the_score_are_not_used(tmp_path: Path) -> None:
    for name, value in (("base", 0.5), ("tuned", 0.7)):
        write_samples(tmp_path / name, [1, 0] * 20 if name == "base" else [0, 1] * 20)
        content = {"results": {"arc_easy": {"acc,none": value, "acc_stderr,none": 0.01}}}
        (tmp_path / name / f"results_{MOMENT}.json").write_text(json.dumps(content))
    (row,) = compare_with_base(read_external(tmp_path), "base")
    assert row.test.method == "unpaired z" and row.difference == pytest.approx(0.2)


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


def test_without_a_base_nothing_is_claimed(folder: Path) -> None:
    (folder / "base").rename(folder / "first")
    results = read_external(folder)
    assert find_base(results, None) is None and compare_with_base(results, None) == []
    assert any("whether training helped is unknown" in part for part in missing_parts(results, None, []))
    assert find_base(results, "first") == "first"
    with pytest.raises(UserError, match="no run has this name"):
        find_base(results, "nobody")
