"""Exact tests of small counts, seeds pooled, groups before their parts, the largest of many."""

import json
from pathlib import Path

import numpy as np
import pytest

from loragrid.external.base_comparison import compare_with_base
from loragrid.external.reading import read_external
from loragrid.external.sentences import answer
from tests.fixtures.external_runs import write_results, write_samples


@pytest.mark.parametrize("stated", [True, False])
def test_small_counts_get_an_exact_test(tmp_path: Path, stated: bool) -> None:
    """7 of 120 against 0 of 120: by the hypergeometric distribution p = 2·C(120, 7)/C(240, 7) = 0.0142."""
    items = {"n-samples": {"facts": {"effective": 120}}} if stated else {"n-samples": {}}
    for name, right in (("base", 7), ("tuned", 0)):
        write_results(tmp_path / name, right / 120, items=120, **items)
    (row,) = compare_with_base(read_external(tmp_path), "base")
    p = 2 * float(np.prod([(120 - k) / (240 - k) for k in range(7)]))
    assert row.test.method == "exact Fisher" and row.test.p == pytest.approx(p) and row.test.high < 0


def test_a_standard_error_of_zero_is_no_certainty(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,lora_r,f1,f1_stderr\nbase,,0.1,0\nlora,8,0.2,0\n")
    (row,) = compare_with_base(read_external(tmp_path), "base")
    assert row.test is None and not row.verdict


def test_true_and_false_are_items(tmp_path: Path) -> None:
    for name, answers in (("base", [False] * 30 + [True] * 30), ("tuned", [True] * 55 + [False] * 5)):
        write_samples(tmp_path / name, [0] * 60)
        path = next((tmp_path / name).glob("samples_*"))
        rows = [json.loads(line) | {"acc": value} for line, value in zip(path.read_text().splitlines(), answers)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (row,) = compare_with_base(read_external(tmp_path), "base")
    # 30 items gained, 5 lost: 2·P(X ≤ 5), X ~ Binomial(35, ½).
    assert row.test.method == "exact McNemar" and row.test.p == pytest.approx(2.2e-5, rel=0.05)


@pytest.mark.parametrize("column", [True, False])
def test_seeds_of_one_setting_are_pooled(tmp_path: Path, column: bool) -> None:
    scores = {8: (0.60, 0.66, 0.63), 32: (0.61, 0.67, 0.64)}
    lines = ["name,seed,lora_r,acc,acc_stderr", "base,,,0.5,0.01"]
    for rank, values in scores.items():
        for seed, value in enumerate(values):
            lines.append(f"r{rank}-seed{seed},{seed if column else ''},{rank},{value},0.01")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    rows = compare_with_base(read_external(tmp_path), "base")
    pooled = {(row.run, row.against): row for row in rows if row.of_setting}
    eight = next(row for (run, against), row in pooled.items() if "8" in run and against == "base")
    assert eight.difference == pytest.approx(0.13) and len(pooled) == 3
    # The error holds the items of both (0.01 each) and three seeds of SD 0.03.
    assert eight.test.high - eight.difference > 1.96 * np.hypot(0.01, 0.01)
    between = next(row for row in pooled.values() if row.against != "base")
    assert between.verdict == "can't tell" and between.difference == pytest.approx(0.01)
    single = [row for row in rows if not row.of_setting]
    assert len(single) == 6 and not any(row.test or row.verdict for row in single)


def test_settings_with_other_training_are_not_compared_with_each_other(tmp_path: Path) -> None:
    lines = ["name,seed,steps,acc,acc_stderr", "base,,,0.5,0.01"]
    lines += [f"{steps}-{seed},{seed},{steps},{0.6 + seed / 100},0.01" for steps in (100, 900) for seed in (1, 2)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    rows = compare_with_base(read_external(tmp_path), "base")
    (between,) = [row for row in rows if row.of_setting and row.against != "base"]
    assert between.refused == ("steps 100 and 900",) and not between.verdict


def test_a_group_is_judged_before_its_parts(tmp_path: Path) -> None:
    parts = [f"part_{number}" for number in range(20)]
    for name, gain in (("base", 0.0), ("tuned", 0.03)):
        results = {
            part: {
                "acc,none": 0.4 + gain,
                "acc_stderr,none": 0.04,
                "acc_norm,none": 0.41 + gain,
                "acc_norm_stderr,none": 0.04,
            }
            for part in parts
        }
        results["whole"] = {"acc,none": 0.4 + gain, "acc_stderr,none": 0.006}
        write_results(tmp_path / name, 0.5, results=results, group_subtasks={"whole": parts, "part_0": []})
    rows = compare_with_base(read_external(tmp_path), "base")
    (whole,) = [row for row in rows if not row.detail_of]
    assert whole.key == ("whole", "acc") and whole.verdict == "adapters differ" and whole.p_corrected < 0.001
    details = [row for row in rows if row.detail_of]
    assert len(details) == 40 and all(row.detail_of == "whole" and row.verdict == "can't tell" for row in details)


def test_the_largest_of_many_is_marked(tmp_path: Path) -> None:
    lines = [
        "name,lora_r,acc,acc_stderr",
        "base,,0.5,0.01",
        *(f"r{r},{r},{0.5 + r / 1000},0.01" for r in (4, 8, 16, 32)),
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    rows = compare_with_base(read_external(tmp_path), "base")
    assert [(row.run, row.largest_of) for row in rows if row.largest_of] == [("r32", 4)]


def test_items_of_several_seeds_pair_with_the_base(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    write_samples(tmp_path / "base", [1, 0, 0, 0] * 50)
    for seed in (1, 2, 3):
        write_samples(tmp_path / f"lora-s{seed}", [int(value) for value in generator.random(200) < 0.6])
    (row,) = [row for row in compare_with_base(read_external(tmp_path), "base") if row.of_setting]
    assert row.verdict == "better" and row.run == "lora (3 seeds)"
    assert row.test.low > 0.2


def test_settings_are_compared_with_each_other_without_a_base(tmp_path: Path) -> None:
    lines = ["name,seed,lora_r,acc,acc_stderr"]
    lines += [
        f"r{rank}-{seed},{seed},{rank},{0.5 + rank / 100 + seed / 1000},0.01" for rank in (4, 40) for seed in range(3)
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    results = read_external(tmp_path)
    (row,) = compare_with_base(results, None)
    assert row.verdict == "better" and (row.run, row.against) == ("rank 40 (3 seeds)", "rank 4 (3 seeds)")
    assert "Between settings, rank 40 (3 seeds) against rank 4 (3 seeds) on acc: better" in answer(results, [row], None)


def test_the_largest_of_many_is_marked_without_errors_too(tmp_path: Path) -> None:
    lines = ["name,lora_r,acc", "base,,0.5", *(f"r{rank},{rank},{0.5 + rank / 1000}" for rank in (4, 8, 16))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    results = read_external(tmp_path)
    rows = compare_with_base(results, "base")
    assert [(row.run, row.largest_of) for row in rows if row.largest_of] == [("r16", 3)]
    assert "partly luck" in answer(results, rows, "base")


def test_values_without_a_finite_variance_get_no_test(tmp_path: Path) -> None:
    lines = ["name,seed,lora_r,acc,acc_stderr", "base,,,0.5,0.01", "a,1,8,1e308,0.01", "b,2,8,0.6,0.01"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    (row,) = [row for row in compare_with_base(read_external(tmp_path), "base") if row.of_setting]
    assert row.test is None and not row.verdict
