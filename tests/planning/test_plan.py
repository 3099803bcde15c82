"""The plan of a study: what it says without GPU or network, what it says once there are data and records."""

import csv
import json
import re
import socket
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import pytest
import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.planning import gpu_cards, scoring_cost
from loragrid.planning.forecast import misfits
from loragrid.planning.gpu_cards import choose_device, read_cards
from loragrid.planning.plan_page import page, text_table
from loragrid.records.record import RunRecord, ScoreRecord, write_record
from loragrid.study.sections import Plan
from loragrid.study.study_file import Study, load_study
from plan import main, make_plan, write_plan
from tests.fixtures.studies import changed, without_shapes

ASKED = Plan(card="T4", vram_mib=None, session_minutes=None, rows=None, row_tokens=1)


@pytest.fixture(autouse=True)
def nothing_but_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, and an error for whoever opens a connection."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a plan opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(gpu_cards, "gpu_here", lambda: None)


@pytest.fixture
def t4() -> Study:
    return load_study("t4")


def by_run(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["run"]: row for row in plan["cells"]}


def a_card(study: Study, results: Path, data: str, *, rows: int, tokens: int) -> None:
    folder = results / "data" / data
    folder.mkdir(parents=True)
    card = {"split": {"train_rows": rows, "heldout_rows": 10}, "tokens": {"train": tokens, "heldout": 1000}}
    (folder / "card.json").write_text(json.dumps(card))


def empty(hint: Any) -> Any:
    """A value of that kind that says nothing."""
    return hint() if isinstance(hint, type) else {dict: {}, tuple: ()}.get(get_origin(hint))


def a_record(study: Study, results: Path, run: str, *, seconds: float, steps: int = 750, **changes: Any) -> None:
    cell = next(cell for cell in study.cells if cell.run == run)
    values = {name: empty(hint) for name, hint in get_type_hints(RunRecord).items()}
    values |= {"schema": 1, "study": study.name, "run": run, "model": cell.model, "status": "finished"}
    values |= {"steps": steps, "planned_steps": 750, "train_seconds": seconds, "peak_vram_mib": 5000.0}
    values |= {"device": {"kind": "cuda", "name": "Tesla T4"}}
    write_record(results / "train" / run / "record.json", RunRecord(**(values | changes)))


def a_score(study: Study, results: Path, subject: str, *, seconds: float) -> None:
    record = ScoreRecord(
        study=study.name,
        subject=subject,
        kind="run",
        model="llama-1b",
        base="b",
        status="scored",
        reason=None,
        adapter_sha256=None,
        precision="4bit",
        chat_template_sha256=None,
        tasks={},
        seconds=seconds,
        versions={},
        git={},
        device={"kind": "cuda", "name": "Tesla T4"},
        code="",
        finished_at="",
    )
    write_record(results / "score" / subject / "score.json", record)


def test_the_t4_study_fits_a_t4_and_scoring_costs_less_than_training(t4: Study, tmp_path: Path) -> None:
    plan = make_plan(study=t4, results=tmp_path)
    assert plan["device"]["vram_mib"] == 15095 and not plan["device"]["found"]
    assert [row["fits"] for row in plan["cells"]] == [True] * 8
    assert plan["totals"]["not_fitting"] == [] and plan["totals"]["complete"]
    for row in plan["cells"]:
        assert row["score_fits"] and row["score_hours"] < row["train_hours"], row["run"]
    rows = by_run(plan)
    base, large = plan["cells"][0], next(row for row in plan["cells"] if row["model"] == "llama-3b")
    # 750 updates at the public 2.65 s and 7.44 s, held-out measurements not counted.
    assert base["steps"] == 750 and base["train_hours"] == pytest.approx(750 * 2.65 / 3600, rel=0.2)
    assert large["train_hours"] == pytest.approx(750 * 7.44 / 3600, rel=0.2) and large["sessions"] == 2
    wide = next(row for row in rows.values() if row["per_device"] == 4)
    assert wide["steps"] == 188 and wide["tokens"] == pytest.approx(base["tokens"], rel=0.01)


@pytest.mark.parametrize("name", ["t4", "t4_short"])
def test_scoring_is_cheaper_than_training_even_if_writing_takes_twice_as_long(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_cost, "WRITE_SECONDS_PER_LAYER", 2 * scoring_cost.WRITE_SECONDS_PER_LAYER)
    for row in make_plan(study=load_study(name), results=tmp_path)["cells"]:
        assert row["score_hours"] < 0.8 * row["train_hours"], row["run"]


def test_the_short_study_fits_a_session(tmp_path: Path) -> None:
    plan = make_plan(study=load_study("t4_short"), results=tmp_path)
    assert plan["totals"]["hours"] * 60 < 45 and plan["totals"]["sessions"] == 1


def test_an_epoch_is_what_the_study_file_says_it_is(t4: Study, tmp_path: Path) -> None:
    plan = make_plan(study=changed(t4, training__budget={"epochs": 1}), results=tmp_path)
    base = plan["cells"][0]
    assert base["steps"] == 12_500 and base["train_hours"] == pytest.approx(9.2, rel=0.2)
    assert plan["totals"]["train_hours"] == pytest.approx(83, rel=0.15)
    unknown = changed(t4, training__budget={"epochs": 1}, plan__rows=None)
    plan = make_plan(study=unknown, results=tmp_path)
    assert plan["cells"][0]["steps"] is None and not plan["totals"]["complete"] and "?" in text_table(plan)


def test_a_cell_that_cannot_fit_is_named_with_what_makes_it_fit(t4: Study, tmp_path: Path) -> None:
    study = changed(t4, training__backend="trl")
    plan = make_plan(study=study, results=tmp_path)
    failing = {row["run"]: row for row in plan["cells"] if row["fits"] is False}
    wide = next(run for run in failing if "b4x8" in run)
    assert plan["totals"]["not_fitting"] == list(failing)
    assert any(mend.startswith("batch [2, 16]") for mend in failing[wide]["fit_by"])
    assert any(mend.startswith("training.backend unsloth") for mend in failing[wide]["fit_by"])
    assert any(mend.startswith("a card such as L4") for mend in failing[wide]["fit_by"])
    assert f"{wide}: does not fit" in text_table(plan)
    # The mends hold: the study with smaller batches fits as the plan said.
    mended = changed(study, grid__batch=[[2, 4], [2, 16]])
    rows = [row for row in make_plan(study=mended, results=tmp_path)["cells"] if row["accumulation"] == 16]
    assert [row["fits"] for row in rows] == [True]


def test_a_smaller_card_and_an_own_limit_count(t4: Study, tmp_path: Path) -> None:
    plan = make_plan(study=changed(t4, plan__vram_mib=6000), results=tmp_path)
    assert {row["model"] for row in plan["cells"] if row["fits"] is False} >= {"llama-3b", "gemma-270m"}
    assert plan["device"]["vram_from"] == "the study file"
    plan = make_plan(study=changed(t4, plan__vram_mib=600), results=tmp_path)
    assert all(row["fits"] is False for row in plan["cells"])
    assert "Would fit with a card such as T4" in text_table(plan)


def test_the_card_that_is_here_counts_before_the_study_files(t4: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_cards, "gpu_here", lambda: ("NVIDIA L4", 23034))
    device = choose_device(ASKED)
    assert device.found and device.name == "NVIDIA L4" and device.vram_mib == 22700 and device.bf16
    assert device.rate_tflops == pytest.approx(121 * 11.5 / 65) and "not measured" in device.rate_from
    monkeypatch.setattr(gpu_cards, "gpu_here", lambda: ("NVIDIA Unheard-Of 9", 50_000))
    device = choose_device(ASKED)
    assert device.vram_mib == 50_000 and device.rate_tflops is None
    with pytest.raises(UserError, match=r"plan\.card: 'T5' is not in config/cards\.yaml: take one of T4"):
        choose_device(replace(ASKED, card="T5"))


def test_a_study_that_starts_says_what_will_hardly_fit(t4: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    assert misfits(t4, t4.cells, choose_device(ASKED)) == []  # the card is not here
    monkeypatch.setattr(gpu_cards, "gpu_here", lambda: ("Tesla T4", 15360))
    assert misfits(t4, t4.cells, choose_device(ASKED)) == []
    lines = misfits(changed(t4, training__backend="trl"), t4.cells, choose_device(ASKED))
    assert any("b4x8" in line and "Tesla T4 has 15,095" in line for line in lines)
    monkeypatch.setattr(gpu_cards, "gpu_here", lambda: None)
    fp16 = changed(t4, training__compute_dtype="fp16")
    assert misfits(fp16, fp16.cells, choose_device(ASKED)) == []
    (line,) = misfits(fp16, fp16.cells, choose_device(replace(ASKED, card=None)))
    assert line.startswith("training.compute_dtype: no GPU is here, and a CPU does not train in fp16")


def test_every_card_tells_its_sources_and_the_t4_rate_follows_from_public_runs() -> None:
    from loragrid.models.flops import training_per_token
    from loragrid.models.shape import find_shape

    for card in read_cards().values():
        assert card["memory_from"] and card["peak_from"]
        assert (card["training_tflops"] is None) == (card["training_from"] is None)
    models = load_study("t4").models
    rates = []
    for key, seconds in (("llama-1b", 2.65), ("llama-3b", 7.44)):
        parts = training_per_token(
            find_shape(models[key]), rank=16, target_modules="all-linear", row_tokens=550, checkpointing=True
        )
        rates.append(8 * 550 * sum(parts.values()) / seconds / 1e12)
    assert read_cards()["T4"]["training_tflops"] == pytest.approx(sum(rates) / 2, rel=0.01)


def test_operations_are_four_per_weight_and_what_comes_on_top(t4: Study, tmp_path: Path) -> None:
    row = make_plan(study=t4, results=tmp_path)["cells"][0]
    parts = row["flops_by_part"]
    assert parts["base"] == pytest.approx(4 * 1.2358e9 * row["tokens"], rel=1e-3)
    assert parts["adapters"] == 6 * 11_272_192 * row["tokens"]
    assert sum(parts.values()) == row["flops"]
    assert parts["recomputation"] == pytest.approx(2 * 0.9844e9 * row["tokens"], rel=0.05)


def test_prepared_data_replace_the_assumption(t4: Study, tmp_path: Path) -> None:
    cell = t4.cells[0]
    a_card(t4, tmp_path, cell.data, rows=1000, tokens=275_000)
    plan = make_plan(study=t4, results=tmp_path)
    assert plan["data"][cell.data] == {"rows": 1000, "row_tokens": 275.0, "counted": True}
    assert by_run(plan)[cell.run]["steps"] == 1500


def test_finished_runs_on_such_a_device_replace_the_rate(t4: Study, tmp_path: Path) -> None:
    cells = t4.cells
    before = by_run(make_plan(study=t4, results=tmp_path))
    a_record(t4, tmp_path, cells[0].run, seconds=1000.0)
    a_score(t4, tmp_path, cells[0].run, seconds=120.0)
    plan = make_plan(study=t4, results=tmp_path)
    after = by_run(plan)
    done = after[cells[0].run]
    assert done["train_hours"] == pytest.approx(1000 / 3600)
    assert done["train_from"] == "measured on the run itself, which finished"
    assert done["measured_peak_mib"] == 5000 and done["score_hours"] == pytest.approx(120 / 3600)
    factor = done["train_hours"] / before[cells[0].run]["train_hours"]
    assert "5,000 MiB measured" in text_table(plan)
    assert after[cells[1].run]["score_from"] == "measured on others of llama-1b"
    assert after[cells[1].run]["score_hours"] == done["score_hours"]
    for cell in cells[1:]:
        assert after[cell.run]["train_hours"] == pytest.approx(factor * before[cell.run]["train_hours"])
        assert "measured here on 1 run" in after[cell.run]["train_from"]
    # A run that diverged after a tenth of its updates says a tenth.
    a_record(t4, tmp_path, cells[0].run, seconds=100.0, steps=75, status="diverged")
    again = by_run(make_plan(study=t4, results=tmp_path))
    assert again[cells[1].run]["train_hours"] == pytest.approx(after[cells[1].run]["train_hours"])


def test_records_of_another_device_and_broken_ones_are_left_out(
    t4: Study, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cells = t4.cells
    before = by_run(make_plan(study=t4, results=tmp_path))
    a_record(t4, tmp_path, cells[0].run, seconds=1.0, device={"kind": "cpu", "name": "a laptop"})
    (tmp_path / "train" / cells[1].run).mkdir()
    (tmp_path / "train" / cells[1].run / "record.json").write_text("{")
    assert by_run(make_plan(study=t4, results=tmp_path)) == before
    assert f"{cells[1].run}/record.json cannot be read" in capsys.readouterr().err


def test_a_model_of_unknown_shape_is_named_and_the_others_are_planned(t4: Study, tmp_path: Path) -> None:
    study = without_shapes(t4, "gemma-270m")
    plan = make_plan(study=study, results=tmp_path)
    rows = {row["model"]: row for row in plan["cells"]}
    assert "write its shape into the study file" in rows["gemma-270m"]["problem"]
    assert rows["gemma-270m"]["total_mib"] is None and rows["llama-1b"]["fits"]
    assert not plan["totals"]["complete"] and "not planned" in text_table(plan)
    assert "not planned" in page(plan)
    done = next(cell for cell in study.cells if cell.model == "gemma-270m")
    a_record(study, tmp_path, done.run, seconds=100.0)  # of no use for the others' rate: its operations are not known
    assert by_run(make_plan(study=study, results=tmp_path))[study.cells[0].run]["train_from"].startswith("public")


def test_a_cpu_is_planned_for_as_it_is(tmp_path: Path, toy_llama: Path) -> None:
    settings = yaml.safe_load((ROOT / "config/studies/demo.yaml").read_text())
    settings["models"] = {"toy": {"path": str(toy_llama), "precision": "32bit", "chat_template": None}}
    settings["base_case"]["model"] = "toy"
    settings["grid"]["model"] = ["toy"]
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(settings))
    plan = make_plan(study=load_study(str(file)), results=tmp_path / "results")
    assert plan["device"]["kind"] == "cpu" and plan["device"]["vram_mib"] is None
    assert all(row["fits"] is None and row["train_hours"] is None for row in plan["cells"])
    assert {row["train_from"] for row in plan["cells"]} == {"no run has finished on this machine yet"}
    assert (
        "recomputation" in plan["cells"][0]["flops_by_part"] and not plan["cells"][0]["flops_by_part"]["recomputation"]
    )


def test_what_is_written(t4: Study, tmp_path: Path) -> None:
    hostile = changed(t4, title="<script>alert(1)</script>")
    plan = make_plan(study=hostile, results=tmp_path)
    write_plan(plan, results=tmp_path, page_file=tmp_path / "plan.html")
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
    parts = r"predicted peak, MiB +weights +adapters +optimizer +activations +logits +overhead +total\n"
    base = r"llama-1b_lr2e-4_r16_b2x4_s3407( +[\d,]+){7}\n"
    assert re.search(parts + base, re.sub(r" +\n", "\n", shown))
    assert "llama-1b_lr2e-4_r16_b2x4_s3407" in shown and "sessions of 10 minutes" in shown
    assert "not measured" in shown.casefold() and text.read_text() in shown


def test_limits_of_tasks_and_the_error_bars_beside_them(t4: Study, tmp_path: Path) -> None:
    tasks = {task["task"]: task for task in make_plan(study=t4, results=tmp_path)["tasks"]}
    assert {name: task["items"] for name, task in tasks.items()} == {
        "ifeval": 40,
        "running_plan_general": 40,
        "rephrased_prompts": 24,
        "hellaswag": 400,
        "arc_challenge": 400,
        "winogrande": 400,
    }
    assert tasks["hellaswag"]["half_width"] == pytest.approx(0.049)
    assert tasks["rephrased_prompts"]["half_width"] is None  # no share of right answers
    said = (ROOT / "config/studies/t4.yaml").read_text()
    assert "400 items 4.9" in said and "40 items 15.5" in said.replace("\n# ", " ")
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
    with pytest.raises(UserError, match=r"scoring\.limit: 'hellaswg' is neither in target nor in retention"):
        load_study(str(tmp_path / "mine.yaml"))


def test_planning_changes_no_run(t4: Study) -> None:
    plan = {"card": None, "vram_mib": 1, "session_minutes": 5, "rows": 1, "row_tokens": 1}
    other = without_shapes(changed(t4, plan=plan))
    assert [cell.run for cell in other.cells] == [cell.run for cell in t4.cells]


def test_a_model_in_float32_is_reckoned_by_the_cards_float32(t4: Study, tmp_path: Path) -> None:
    """Gemma 3 overflows float16, and a T4 has no bfloat16; an L4 has."""
    of_model = {row["model"]: row for row in make_plan(study=t4, results=tmp_path)["cells"]}
    assert of_model["gemma-270m"]["tflops"] == pytest.approx(8.1 / 2) and of_model["llama-1b"]["tflops"] == 11.5
    assert "float32 peak of 8.1" in of_model["gemma-270m"]["train_from"]
    rows = make_plan(study=changed(t4, plan__card="L4"), results=tmp_path)["cells"]
    assert len({row["tflops"] for row in rows}) == 1
    rows = make_plan(study=changed(t4, training__compute_dtype="fp32"), results=tmp_path)["cells"]
    assert [row["tflops"] for row in rows] == pytest.approx([8.1 / 2] * len(rows))
