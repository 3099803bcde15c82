"""The benchmarks measure what they claim, tried on small inputs; their speed is not judged."""

import csv
import importlib
import itertools
import json
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import yaml

from loragrid.paths import ROOT
from loragrid.study.study_file import load_study
from loragrid.study.tasks import item_limit
from tests.fixtures.app_toys import finished_study, toy_catalogue

BENCHMARKS = ROOT / "benchmarks"


def load(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name}")


def test_a_command_s_orphans_count(tmp_path: Path) -> None:
    # In a process of its own: it makes itself the parent of all orphans below it.
    work = "sum(i * i for i in range(6_000_000))"
    code = "import json; from benchmarks import measuring; "
    code += f"""print(json.dumps(measuring.run(["sh", "-c", '{sys.executable} -c "{work}" & exit 0'])))"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["cpu_seconds"] > 0.2


def test_a_command_that_fails_stops_the_benchmark_with_its_words() -> None:
    code = "from benchmarks import measuring; "
    code += 'measuring.run(["sh", "-c", "echo no such thing >&2; exit 3"])'
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "ended with status 3" in done.stderr and "no such thing" in done.stderr


def test_the_page_is_made_from_the_files() -> None:
    table = load("table")
    assert (BENCHMARKS / "README.md").read_text() == table.table(table.RESULTS), "run python -m benchmarks.table"


def test_the_page_says_what_is_not_measured(tmp_path: Path) -> None:
    table = load("table")
    (tmp_path / "gpu_train.json").write_text(json.dumps({"on": "cpu: nothing about a GPU", "rows": [{"way": "trl"}]}))
    lines = [line for line in table.table(tmp_path).splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(table.SECTIONS) + len(table.GPU)
    assert all(table.NOT_MEASURED in line for line in lines[1:])


def test_a_real_model_s_figures_are_rows_of_the_page() -> None:
    value = {"median": 1.7, "min": 1.6, "max": 1.8}
    training = {"2": {"ratios": {"pace": value}, "share_of_products": value, "products_tflops": 0.07}}
    rows = list(load("table_rows").real({"model": "m", "training": training}))
    assert rows == [
        ("Training m, threads: 2; pace", "1.70 (1.60 to 1.80)", ""),
        ("Training m, threads: 2; share of the rate of matrix products", "1.70 (1.60 to 1.80) of 70 GFLOPS", ""),
    ]


@pytest.mark.long
def test_a_study_of_a_real_model_has_the_three_sets_and_the_plans(tmp_path: Path) -> None:
    real = load("real")
    pair = {"sentence_good": "He sees himself.", "sentence_bad": "He sees itself."}
    for number in range(4):
        (tmp_path / f"blimp_{number}.jsonl").write_text(json.dumps(pair))
    rows = [{"instruction": f"Say {number}.", "input": "", "output": str(number)} for number in range(400)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    model = ROOT / "resources" / "models" / "llama-s"
    sizes = {"tokens": 400, "heldout": 8, "items": 5}
    places = {"model": model, "rows": tmp_path / "rows.json", "pairs": tmp_path}
    path = real.make_study(tmp_path, Namespace(**places, **sizes, threads=[1, 2]))
    study = load_study(str(path))
    assert study.heldout.rows == 8 and item_limit(study.scoring.limit, study.scoring.target[0]) == 8
    from lm_eval.tasks import TaskManager, get_task_dict

    plans = get_task_dict(["short_plans"], TaskManager(include_path=str(tmp_path)))["short_plans"]
    assert len(plans.test_docs()) == 48 and plans.config.generation_kwargs["max_gen_toks"] == 256
    assert [Path(task).stem for task in study.scoring.retention] == ["blimp_0", "blimp_1", "blimp_2"]
    assert len(study.cells) == 2 and study.base_case.threads == 2
    assert real.operations_per_token(path) > 0
    with pytest.raises(SystemExit, match="error: --pairs: fewer than 3 files"):
        real.make_study(tmp_path, Namespace(**places | {"pairs": tmp_path / "none"}, **sizes, threads=[1]))


def test_make_bench_makes_every_line_of_the_page_that_needs_no_gpu() -> None:
    table = load("table")
    named = subprocess.run(["make", "--dry-run", "bench"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    looped = re.search(r"for what in ([\w ]+);", named).group(1).split()
    alone = re.findall(r"benchmarks\.(\w+)$", named, re.MULTILINE) + re.findall(
        r"results/(\w+)\.json$", named, re.MULTILINE
    )
    assert {*looped, *alone} == {
        *(set(table.SECTIONS) - {"certificate", "real"}),  # `real` needs a model and data that are not shipped
        "table",
    }


@pytest.mark.long
def test_a_made_up_finished_study_has_nothing_to_do_until_it_grows(tmp_path: Path) -> None:
    scale = load("scale")
    study = scale.grid_study(tmp_path, 100)
    scale.finish(tmp_path, study)
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        ROOT / "workflow/Snakefile",
        "-d",
        tmp_path,
        "--dry-run",
        "--config",
    ]

    def planned(path: Path, *more: str) -> str:
        done = subprocess.run([*command, f"study={path}", *more], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    assert "Nothing to be done" in planned(study)
    told = planned(scale.grid_study(tmp_path, 100, added=True), "--forcerun", "compare")
    jobs = dict(re.findall(r"^(\w+) +(\d+) *$", told, re.MULTILINE))
    once = dict.fromkeys(("compare", "find_next", "report", "all"), "1")
    assert jobs == {"train": "10", "score": "10", "total": "24"} | once


@pytest.mark.long
def test_made_up_conversations_are_all_kept(tmp_path: Path) -> None:
    scale = load("scale")
    found = scale.measure_rows(150, tmp_path / "rows", processes=[])
    assert found["rows"] == 150 and found["tokens"] > 150 * 50 and found["peak_pss_mib"] >= 0


def test_scores_are_compared_item_by_item(tmp_path: Path) -> None:
    scoring, rows = load("scoring"), []
    for item, value in (("0", 1.0), ("1", 0.0)):
        rows.append({"task": "world_sums", "item": item, "metric": "acc", "value": value})
    (tmp_path / "ours" / "base").mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(tmp_path / "ours" / "base" / "items.parquet")
    samples = tmp_path / "theirs" / "base" / "model" / "samples_world_sums_2026-01-01T00-00-00.jsonl"
    samples.parent.mkdir(parents=True)
    lines = [{"doc_id": 0, "metrics": ["acc"], "acc": 1.0}, {"doc_id": 1, "metrics": ["acc"], "acc": 1.0}]
    samples.write_text("\n".join(map(json.dumps, lines)))
    found = scoring.compare(tmp_path / "ours", tmp_path / "theirs")
    assert found == {"compared": 2, "different": 1, "largest_difference": 1.0}


def test_answers_are_those_of_lm_eval() -> None:
    generation = load("generation")
    found = generation.measure(ROOT / "resources" / "models" / "llama-s", tokens=5, sample=2, repeats=1)
    assert [one[0]["answers"] for one in found["taken"].values()] == [48, 2, 16]
    assert [same["compared"] for same in found["texts"].values()] == [2, 16]
    assert not any(same["different"] for same in found["texts"].values())
    for value in found["ratios"].values():
        assert value["median"] > 0


# A run that makes an update every 20 ms, saves every 10 updates and resumes from there.
RUN = """
import csv, pathlib, sys, time
out = pathlib.Path(sys.argv[1])
out.mkdir(exist_ok=True)
saved = out / "saved"
rows = saved.read_text().splitlines() if saved.exists() else ["step,kind"]
(out / "losses.csv").write_text("\\n".join(rows) + "\\n")
for step in range(len(rows), 31):
    time.sleep(0.02)
    rows.append(f"{step},train")
    (out / "losses.csv").write_text("\\n".join(rows) + "\\n")
    if step % 10 == 0:
        saved.write_text("\\n".join(rows))
"""


def test_updates_made_twice_after_a_kill(tmp_path: Path) -> None:
    found = load("checkpoint")._killed([sys.executable, "-c", RUN, tmp_path], tmp_path, 10)
    assert 4 <= found["updates_replayed"] <= 9  # killed at 15 or soon after, resumed from 10
    assert found["seconds_to_begin"] > 0 and found["seconds_to_resume"] > 0
    with open(tmp_path / "losses.csv", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 31))


@pytest.fixture
def small_gpu(tmp_path: Path) -> Callable[..., dict]:
    """Measure a piece of the GPU benchmark on the CPU, in tiny shapes, one more row with every call."""
    gpu, numbers = load("gpu"), itertools.count()

    def measure(piece: str, **options: object) -> dict:
        folder = tmp_path / str(next(numbers))
        return gpu.measure(piece, gpu.Options(["tiny"], steps=4, minutes=0), folder=folder, **options)

    if gpu.Bench(tmp_path, steps=4).cuda:
        pytest.skip("with a GPU here: run benchmarks/gpu.py instead")
    return measure


@pytest.mark.long
def test_gpu_speed_in_small_row_by_row(small_gpu: Callable[..., dict]) -> None:
    first = small_gpu("train")
    both = small_gpu("train", known=first["rows"])
    assert [row["way"] for row in both["rows"]] == ["loragrid, trl", "trl"] and not both["complete"]
    assert both["rows"][0] == first["rows"][0]
    for row in both["rows"]:
        assert 0 < row["useful_tokens_per_second"] < row["tokens_per_second"] and row["peak_vram_mib"] is None
    lines = dict((what, figure) for what, figure, _ in load("gpu_table").gpu_rows(both))
    (ratio,) = [float(figure) for what, figure in lines.items() if "to trl alone, both not packed" in what]
    assert ratio == pytest.approx(
        both["rows"][0]["useful_tokens_per_second"] / both["rows"][1]["useful_tokens_per_second"], abs=0.01
    )
    assert all("incomplete" in what for what in lines)


# `together` starts Snakemake six times, as other tests do.
@pytest.mark.parametrize("piece", ["capped", pytest.param("resume", marks=pytest.mark.long)])
def test_every_gpu_piece_in_small(small_gpu: Callable[..., dict], piece: str) -> None:
    found = small_gpu(piece)
    (row,) = found["rows"]
    assert "failed" not in row, row["failed"]
    if piece == "capped":
        assert row["fits"] and row["predicted_mib"] > 0
    if piece == "resume":
        assert row["killed"] and row["largest_difference"] == {"second run": 0.0, "killed and resumed": 0.0}
    assert all(figure for _, figure, _ in load("gpu_table").gpu_rows(found) if piece != "capped")


def test_the_engines_score_in_turn(small_gpu: Callable[..., dict], monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage itself scores with each engine in tests/scoring; here are its commands."""
    gpu, commands = load("gpu"), []

    def spawn(_bench: object, command: list, _place: Path) -> subprocess.Popen:
        commands.append([str(part) for part in command])
        return subprocess.Popen(["sleep", "0.01"])

    monkeypatch.setattr(gpu.Bench, "spawn", spawn)
    rows = small_gpu("scoring")["rows"]
    for _ in range(2):
        found = small_gpu("scoring", known=rows)
        rows = found["rows"]
    assert [(row["way"], "failed" in row) for row in rows] == [("hf", False), ("vllm", False), ("lm_eval", False)]
    ours, theirs = commands[:2], commands[2:]
    for command, engine in zip(ours, ("hf", "vllm"), strict=True):
        assert load_study(command[command.index("--study") + 1]).scoring.engine == engine
        assert len(Path(command[command.index("--list") + 1]).read_text().splitlines()) == 3
    assert ["peft" in " ".join(command) for command in theirs] == [False, True, True]
    lines = {what: figure for what, figure, _ in load("gpu_table").gpu_rows(found)}
    assert float(lines["GPU scoring: seconds of lm_eval over those of vllm"]) > 0


def test_runs_started_together_take_turns(tmp_path: Path) -> None:
    script, said = tmp_path / "script.py", tmp_path / "said"
    lines = ["import sys, time", "out = open(sys.argv[1], 'a')", "print('in', file=out, flush=True)", "time.sleep(0.3)"]
    script.write_text("\n".join([*lines, "print('out', file=out)"]))
    code = "from benchmarks import gpu_turn; gpu_turn.LIBRARIES = (); gpu_turn.main()"
    command = [sys.executable, "-c", code, "trl", tmp_path / "turn", script, said]
    runs = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert said.read_text().split() == ["in", "out"] * 3


def test_a_folded_run_is_compared_with_the_unfolded_one_and_the_library_s_own_defaults() -> None:
    same = {"shape": "llama-1b", "precision": "4bit", "dtype": "bf16", "rank": 16, "steps": 12, "packing": False}
    paces = {("loragrid, trl", 2): 100.0, ("loragrid, trl", 8): 300.0, ("trl, its own defaults", 2): 150.0}
    rows = [
        same | {"way": way, "per_device": batch, "accumulation": 8 // batch, "useful_tokens_per_second": pace}
        for (way, batch), pace in paces.items()
    ]
    found = {"piece": "train", "complete": True, "rows": rows}
    lines = {what: figure for what, figure, _ in load("gpu_table").gpu_rows(found) if "useful tokens/s to" in what}
    folded = {what.rpartition(" to ")[2]: figure for what, figure in lines.items() if "8 × 1" in what}
    assert folded == {"trl alone by its own defaults, 2 × 4": "2.00", "its own at 2 × 4": "3.00"}
    assert [figure for what, figure in lines.items() if "8 × 1" not in what] == ["0.67"]


def test_a_run_with_ligers_kernels_is_compared_with_the_same_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = load("gpu")
    bench = gpu.Bench(tmp_path, steps=4)
    bench.cuda, bench.dtype = True, "bf16"
    monkeypatch.setattr("benchmarks.gpu_runs.find_spec", lambda name: name == "liger_kernel")
    monkeypatch.setattr(gpu.Bench, "model", lambda self, setting: tmp_path)
    rows = [asked | {"steps": 4} for asked, _ in gpu.train(bench, ["tiny"], ["liger"])]
    assert [row["way"] for row in rows] == ["loragrid, trl", "loragrid, trl with liger"]
    every = [asked["way"] for asked, _ in gpu.train(bench, ["tiny"]) if asked["accumulation"] == 4]
    assert every.count("loragrid, trl with liger") == 1
    settings = yaml.safe_load(bench._study(bench.plain("tiny"), "trl with liger", save_steps=9).read_text())
    assert settings["training"]["liger_kernels"] is True and settings["base_case"]["backend"] == "trl"
    rows = [row | {"useful_tokens_per_second": pace} for row, pace in zip(rows, (100.0, 120.0), strict=True)]
    found = {"piece": "train", "complete": True, "rows": rows}
    lines = {what: figure for what, figure, _ in load("gpu_table").gpu_rows(found) if "useful tokens/s to" in what}
    assert list(lines.values()) == ["1.20"] and "its own without liger" in next(iter(lines))
    bench.cuda = False
    with pytest.raises(SystemExit, match=r"^liger: there is no GPU"):
        next(gpu.train(bench, ["tiny"], ["liger"]))


def test_a_gpu_row_that_fails_says_why_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = load("gpu")
    monkeypatch.setattr(gpu.Bench, "resume", lambda *_: (_ for _ in ()).throw(RuntimeError("out of luck")))
    found = gpu.measure("resume", gpu.Options(["tiny"], steps=4, minutes=0), folder=tmp_path)
    assert [row["failed"] for row in found["rows"]] == ["out of luck"] * len(found["rows"])
    gpu.write(tmp_path / "gpu_resume.json", found)
    assert gpu.read_known(tmp_path / "gpu_resume.json") == []


def test_the_app_is_measured_and_its_queue_mixes_nothing_up(tmp_path: Path, toy_llama: Path) -> None:
    pytest.importorskip("gradio")
    app, study = load("app"), finished_study(tmp_path, toy=toy_llama)
    answerer, loading = app.measure_loading(toy_catalogue(study))
    assert loading["adapters"] == 2 and loading["switch_seconds"]["max"] < 1
    asked = app.forms(2)
    assert asked[0] != asked[1] and asked == app.forms(2)
    alone, answers = app.measure_answers(answerer, asked)
    assert answers["first_word_seconds"]["max"] < answers["answer_seconds"]["max"]
    queue = app.measure_queue(answerer, asked, [alone[0], "another answer"])
    assert (queue["right"], queue["requests"]) == (1, 2) and queue["wait"]["max"] == queue["seconds"]


@pytest.mark.long
def test_the_reports_reach_is_measured_and_its_page_scrolled(tmp_path: Path) -> None:
    reach = load("report_reach")
    found = reach.measure(tmp_path, runs=10, items=20)
    assert found["runs"] == 10 and found["compare"]["seconds"] > 0 and found["report"]["peak_pss_mib"] > 0
    scrolled = reach.scroll(tmp_path / "reports" / "report.html")
    if scrolled is None:
        pytest.skip("no Chromium, or no playwright")
    assert scrolled["scrolled_px"] > 1000 and scrolled["frame_ms"]["median"] > 0
