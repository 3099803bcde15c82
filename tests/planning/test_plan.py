"""The plan of a study without GPU or network: what fits, how long it takes, and what is written."""

import csv
import json
import math
import re
from dataclasses import replace
from functools import partial
from html import unescape
from pathlib import Path

import pytest
import yaml

from loragrid.errors import UserError
from loragrid.models.find_shape import find_shape
from loragrid.paths import ROOT
from loragrid.planning import scoring_cost
from loragrid.planning.plan_page import format_table, render_page, summary
from loragrid.planning.scoring_cost import scoring_seconds, task_sizes
from loragrid.study.study_file import Study, load_study
from plan import main, make_plan, write_plan_files
from tests.fixtures.plan_records import by_run, write_run_record
from tests.fixtures.studies import changed, toy_study, without_shapes


def test_the_t4_study_fits_a_t4_and_scoring_costs_less_than_training(t4: Study, tmp_path: Path) -> None:
    plan = make_plan(study=t4, results=tmp_path)
    assert plan["device"]["vram_mib"] == 14913 and not plan["device"]["found"]
    assert [row["fits"] for row in plan["cells"]] == [True] * 26
    assert plan["totals"]["train_hours"] < 10
    # Apart from training: 55 s until the first run of each base trains, 15 s for a later one, which unsloth loads for.
    assert plan["totals"]["start_hours"] == pytest.approx((2 * 55 + 24 * 15) / 3600)
    assert "starting 8 min" in format_table(plan) and "starting 8 min" in render_page(plan)
    alone = make_plan(study=t4, results=tmp_path, worker=False)["totals"]
    assert alone["start_hours"] == pytest.approx(26 * 55 / 3600)
    assert alone["score_hours"] > plan["totals"]["score_hours"]
    assert plan["totals"]["not_fitting"] == [] and plan["totals"]["complete"]
    for row in plan["cells"]:
        assert row["score_fits"] and row["score_hours"] < row["train_hours"], row["run"]
    rows = by_run(plan)
    base = plan["cells"][0]
    # Updates at the public 2.65 s and 7.44 s, held-out measurements not counted.
    assert base["steps"] == 477 and base["train_hours"] == pytest.approx(477 * 2.65 / 3600, rel=0.2)
    wide = next(row for row in rows.values() if row["per_device"] == 4)
    assert wide["steps"] == 119 and wide["tokens"] == pytest.approx(base["tokens"], rel=0.01)
    with_large = changed(t4, grid__axes__model=["llama-1b", "gemma-270m", "llama-3b"])
    large = next(row for row in make_plan(study=with_large, results=tmp_path)["cells"] if row["model"] == "llama-3b")
    assert large["train_hours"] == pytest.approx(477 * 7.44 / 3600, rel=0.2) and large["sessions"] == 2


def test_scoring_the_short_study_is_cheaper_than_training_even_if_writing_takes_twice_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not so the t4 study: its 541 answers per run are what makes a difference of 8 points visible."""
    monkeypatch.setattr(scoring_cost, "WRITE_SECONDS_PER_LAYER", 2 * scoring_cost.WRITE_SECONDS_PER_LAYER)
    for row in make_plan(study=load_study("t4_short"), results=tmp_path)["cells"]:
        assert row["score_hours"] < 0.8 * row["train_hours"], row["run"]


def test_the_short_study_fits_a_session(tmp_path: Path) -> None:
    plan = make_plan(study=load_study("t4_short"), results=tmp_path)
    assert plan["totals"]["hours"] * 60 < 45 and plan["totals"]["sessions"] == 1


def test_the_epoch_matches_the_study_files_comment(t4: Study, tmp_path: Path) -> None:
    plan = make_plan(study=changed(t4, base_case__budget={"epochs": 1}), results=tmp_path)
    base = plan["cells"][0]
    assert base["steps"] == 12_500 and base["train_hours"] == pytest.approx(9.5, rel=0.01)
    assert plan["totals"]["train_hours"] == pytest.approx(233, rel=0.01)
    unknown = changed(t4, base_case__budget={"epochs": 1}, plan__rows=None)
    plan = make_plan(study=unknown, results=tmp_path)
    assert plan["cells"][0]["steps"] is None and not plan["totals"]["complete"] and "?" in format_table(plan)


def test_a_cell_that_cannot_fit_is_named_with_what_makes_it_fit(t4: Study, tmp_path: Path) -> None:
    study = changed(t4, base_case__backend="trl", base_case__max_length_tokens=8192)
    plan = make_plan(study=study, results=tmp_path)
    failing = {row["run"]: row for row in plan["cells"] if row["fits"] is False}
    wide = next(run for run in failing if "batch4x8" in run)
    assert plan["totals"]["not_fitting"] == list(failing)
    assert any(change.startswith("batch [2, 16]") for change in failing[wide]["fit_by"])
    assert any(change.startswith("backend unsloth") for change in failing[wide]["fit_by"])
    assert any(change.startswith("a card such as V100-16GB") for change in failing[wide]["fit_by"])
    assert f"{wide}: does not fit" in format_table(plan)
    # The changes hold: the study with smaller batches fits as the plan said.
    smaller_batches = changed(study, grid__axes__batch=[[2, 4], [2, 16]])
    rows = [row for row in make_plan(study=smaller_batches, results=tmp_path)["cells"] if row["accumulation"] == 16]
    assert [row["fits"] for row in rows] == [True] * 3


def test_a_limit_below_the_cards_memory_counts(t4: Study, tmp_path: Path) -> None:
    plan = make_plan(study=changed(t4, plan__vram_mib=4000), results=tmp_path)
    assert {row["per_device"] for row in plan["cells"] if row["fits"] is False} == {4}
    assert plan["device"]["vram_from"] == "the study file"
    plan = make_plan(study=changed(t4, plan__vram_mib=600), results=tmp_path)
    assert all(row["fits"] is False for row in plan["cells"])
    assert "Would fit with a card such as T4" in format_table(plan)


def test_operations_are_four_per_weight_plus_adapters_and_recomputation(t4: Study, tmp_path: Path) -> None:
    row = make_plan(study=t4, results=tmp_path)["cells"][0]
    parts = row["flops_by_part"]
    assert parts["base"] == pytest.approx(4 * 1.2358e9 * row["tokens"], rel=1e-3)
    assert parts["adapters"] == 6 * 11_272_192 * row["tokens"]
    assert sum(parts.values()) == row["flops"]
    assert parts["recomputation"] == pytest.approx(2 * 0.9844e9 * row["tokens"], rel=0.05)


def test_a_model_of_unknown_shape_is_named_and_the_others_are_planned(t4: Study, tmp_path: Path) -> None:
    study = without_shapes(t4, "gemma-270m")
    plan = make_plan(study=study, results=tmp_path)
    rows = {row["model"]: row for row in plan["cells"]}
    assert "write the model's shape into the study file" in rows["gemma-270m"]["problem"]
    assert rows["gemma-270m"]["total_mib"] is None and rows["llama-1b"]["fits"]
    assert not plan["totals"]["complete"] and "not planned" in format_table(plan)
    assert "not planned" in render_page(plan)
    done = next(cell for cell in study.cells if cell.model == "gemma-270m")
    write_run_record(
        study, tmp_path, done.run, seconds=100.0
    )  # of no use for the others' rate: its operations are not known
    assert by_run(make_plan(study=study, results=tmp_path))[study.cells[0].run]["train_from"].startswith("public")


def test_a_plan_for_a_cpu(tmp_path: Path, toy_llama: Path) -> None:
    settings = yaml.safe_load((ROOT / "config/studies/demo.yaml").read_text())
    settings["models"] = {"toy": {"path": str(toy_llama)}}
    del settings["grid"]["axes"]["model"]
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(settings))
    study = load_study(str(file))
    plan = make_plan(study=study, results=tmp_path / "results")
    assert plan["device"]["kind"] == "cpu" and plan["device"]["vram_mib"] is None
    assert all(row["fits"] is None for row in plan["cells"])
    (source,) = {row["train_from"] for row in plan["cells"]}
    assert source.startswith("assumed: 80% of 60 GFLOPS, matrix products on this CPU for 2 s on 1 thread, and 50 µs an")
    row, operations = plan["cells"][0], 327 * 3 / 4 * find_shape(study.models["toy"]).layers
    passes = row["steps"] * row["accumulation"]
    # A CPU does not compute while the next operation starts.
    assert row["train_hours"] * 3600 == pytest.approx(row["flops"] / 48e9 + operations * passes * 5e-5)
    assert row["start_hours"] == 0 and row["score_hours"] < 0.05 and plan["totals"]["complete"]
    assert (
        "recomputation" in plan["cells"][0]["flops_by_part"] and not plan["cells"][0]["flops_by_part"]["recomputation"]
    )


def test_answers_on_a_cpu_are_planned_many_at_a_time() -> None:
    """48 answers at once: a step reads all weights, and computes its rows at the rate of training."""
    shape, scoring = (
        find_shape(load_study("t4").models["gemma-270m"]),
        replace(load_study("demo").scoring, batch_size=16),
    )
    found = partial(scoring_seconds, shape, heldout_rows=1, row_tokens=100, on_cpu=True)
    one, many = (found(scoring=replace(scoring, batch_size=size), tflops=0.05)["running_plan"] for size in (1, 48))
    assert one == many, "a smaller batch does not count"
    slow, fast = (found(scoring=scoring, tflops=rate)["running_plan"] for rate in (0.01, 1e9))
    size = task_sizes(scoring)["running_plan"]
    steps = math.ceil(size.items / 48) * size.answer_tokens
    assert fast == pytest.approx(steps * (shape.layers * 5e-4 + 4 * shape.parameters() / 1.5e10), rel=1e-3)
    assert slow > 5 * fast


def test_a_plan_with_ligers_kernels_says_that_their_speed_is_not_measured(tmp_path: Path) -> None:
    study = changed(load_study("t4_short"), base_case__backend="trl")
    without, with_liger = (
        make_plan(study=one, results=tmp_path) for one in (study, changed(study, training__liger_kernels=True))
    )
    said = [line for line in summary(with_liger) if "liger" in line]
    assert len(said) == 1 and "speed with LoRA is not measured" in said[0]
    assert not any("liger" in line for line in summary(without))
    hours = [plan["totals"]["train_hours"] for plan in (without, with_liger)]
    assert hours[0] == hours[1]


def test_the_files_of_a_plan(t4: Study, tmp_path: Path) -> None:
    hostile = changed(t4, title="<script>alert(1)</script>")
    plan = make_plan(study=hostile, results=tmp_path)
    write_plan_files(plan, results=tmp_path, page_file=tmp_path / "plan.html")
    rows = list(csv.DictReader((tmp_path / "plan/plan.csv").open()))
    assert [row["run"] for row in rows] == [cell.run for cell in t4.cells]
    assert float(rows[0]["total_mib"]) == plan["cells"][0]["total_mib"]
    assert json.loads((tmp_path / "plan/plan.json").read_text())["totals"] == plan["totals"]
    html = (tmp_path / "plan.html").read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "default-src 'none'" in unescape(html)
    assert "http" not in html.replace('http-equiv="Content-Security-Policy"', "")
    for row in rows:
        assert row["run"].rsplit("_", 1)[0] in html
        assert f"<td>{float(row['weights_mib']):,.0f}</td><td>" in html


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    text = tmp_path / "logs" / "plan.log"
    options = ["--study", "t4_short", "--results", str(tmp_path / "results"), "--page", str(tmp_path / "plan.html")]
    monkeypatch.setattr("sys.argv", ["plan.py", *options, "--session-minutes", "10", "--text", str(text)])
    main()
    shown = capsys.readouterr().out
    parts = r"predicted peak, MiB +weights +adapters +gradients +optimizer +activations +logits +overhead +total\n"
    base = r"llama-1b( +[\d,]+){8}\n"
    assert re.search(parts + base, re.sub(r" +\n", "\n", shown))
    assert "llama-1b_lr2e-5" in shown and "sessions of 10 minutes" in shown
    assert "not measured" in shown.casefold() and text.read_text() in shown


def test_limits_of_tasks_and_the_error_bars_beside_them(t4: Study, tmp_path: Path) -> None:
    tasks = {task["task"]: task for task in make_plan(study=t4, results=tmp_path)["tasks"]}
    assert {name: task["items"] for name, task in tasks.items()} == {
        "ifeval": 541,
        "running_plan_general": 48,
        "rephrased_prompts": 24,
        "hellaswag": 2000,
        "arc_challenge": 1172,
        "winogrande": 1267,
    }
    assert tasks["hellaswag"]["half_width"] == pytest.approx(0.0219, abs=1e-4)
    assert tasks["rephrased_prompts"]["half_width"] is None  # no share of right answers
    everything = {
        task["task"]: task["items"]
        for task in make_plan(study=changed(t4, scoring__limit=None), results=tmp_path)["tasks"]
    }
    assert (
        everything["hellaswag"] == 10_042 and everything["ifeval"] == 541 and everything["running_plan_general"] == 48
    )


def test_a_limit_for_a_task_that_is_not_scored_is_refused(tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / "config/studies/t4.yaml").read_text())
    settings["scoring"]["limit"]["hellaswg"] = 5
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=r"scoring\.limit: .* in neither target nor retention \('hellaswg'\)"):
        load_study(str(tmp_path / "mine.yaml"))


def test_planning_changes_no_run(t4: Study) -> None:
    plan = {"card": None, "vram_mib": 1, "session_minutes": 5, "rows": 1, "row_tokens": 1}
    other = without_shapes(changed(t4, plan=plan))
    assert [cell.run for cell in other.cells] == [cell.run for cell in t4.cells]


def test_the_settings_left_to_their_defaults_are_listed_with_their_reasons(toy_llama: Path, tmp_path: Path) -> None:
    study = toy_study({"toy": toy_llama}, base_case={"method": "full", "learning_rate": 1e-3})
    plan = make_plan(study=study, results=tmp_path)
    rows = {row["key"]: row for row in plan["defaults"]}
    assert (
        rows["base_case.warmup"]["value"] == {"ratio": 0.03}
        and "first updates small" in rows["base_case.warmup"]["reason"]
    )
    assert rows["heldout.rows"]["value"] == 200 and "base_case.learning_rate" not in rows
    assert "base_case.rank" not in rows  # the method has none
    text, page = format_table(plan), render_page(plan)
    assert f"{len(rows)} settings are left to their defaults" in text
    assert re.search(r"base_case\.warmup +{ratio: 0\.03} +3 % keeps the first updates small", text)
    assert "base_case.warmup</th><td>{ratio: 0.03}</td>" in page


def test_each_method_is_planned_by_what_it_trains(t4: Study, tmp_path: Path) -> None:
    methods = ["lora", "dora", "vera", "ia3", "full"]
    study = changed(t4, grid__axes={"method": methods}, base_case__precision="16bit", base_case__backend="trl")
    rows = {row["method"]: row for row in make_plan(study=study, results=tmp_path)["cells"]}
    trained = {method: row["trainable"] for method, row in rows.items()}
    assert trained["vera"] < trained["ia3"] < trained["lora"] < trained["dora"] < trained["full"]
    assert trained["full"] == rows["full"]["parameters"]
    hours = {method: row["train_hours"] for method, row in rows.items()}
    assert hours["ia3"] < hours["vera"] < hours["lora"] < hours["dora"]
    assert rows["full"]["flops_by_part"]["base"] == pytest.approx(1.5 * rows["lora"]["flops_by_part"]["base"])
    assert rows["full"]["adapters_mib"] == 0 and rows["full"]["gradients_mib"] > rows["lora"]["gradients_mib"]


def test_scoring_along_a_run_is_planned_for_each_part(toy_llama: Path, tmp_path: Path) -> None:
    once = toy_study({"toy": toy_llama}, plan={"card": "T4", "rows": 1000})
    along = changed(once, scoring__at=[0.25, 0.5, 1.0])
    (before,), (after,) = (make_plan(study=study, results=tmp_path)["cells"] for study in (once, along))
    assert after["score_hours"] == pytest.approx(3 * before["score_hours"]) and "3 times along" in after["score_from"]


def test_a_small_model_on_a_large_card_waits_for_its_operations_to_start(t4: Study, tmp_path: Path) -> None:
    on_h100 = changed(t4, plan__card="H100")
    (row, *_) = (row for row in make_plan(study=on_h100, results=tmp_path)["cells"] if row["model"] == "gemma-270m")
    # 18 layers of 472 operations, three quarters of them without recomputation, in each of 477 updates, 10 µs each.
    assert row["train_hours"] * 3600 == pytest.approx(18 * 472 * 0.75 * 477 * 1e-5)
    assert "starting its operations takes longer" in row["train_from"]
    apart = changed(on_h100, training__fold_batches=False, grid__axes={"model": ["gemma-270m"]})
    slower = next(row for row in make_plan(study=apart, results=tmp_path)["cells"] if row["model"] == "gemma-270m")
    assert slower["train_hours"] == pytest.approx(4 * row["train_hours"])


def test_the_plan_says_how_updates_run(t4: Study, tmp_path: Path) -> None:
    plan = make_plan(study=t4, results=tmp_path)
    rows = {row["model"]: row for row in plan["cells"] if row["per_device"] == 2}
    assert (rows["llama-1b"]["rows_per_pass"], rows["llama-1b"]["checkpointing"]) == (8, True)
    assert (rows["gemma-270m"]["rows_per_pass"], rows["gemma-270m"]["checkpointing"]) == (2, False)
    line = next(line for line in format_table(plan).splitlines() if "batch 2 x 4 runs as 8 x 1" in line)
    assert line.startswith("Updates of llama-1b: ") and "activations are computed again" in line
