"""Resources that jobs request: memory of the GPU and of the machine, and minutes."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.models.find_shape import find_shape
from loragrid.paths import ROOT
from loragrid.planning import gpu_cards, job_resources
from loragrid.planning.gpu_cards import planned_device
from loragrid.planning.job_memory import (
    check_study_modules,
    gpu_layout,
    gpu_training_setup,
    training_setup,
    with_layout,
)
from loragrid.planning.job_resources import (
    BUSY_SHARE,
    MEMORY_MARGIN,
    STARTUP_MINUTES,
    WHOLE_GPU_MIB,
    resource_requests,
)
from loragrid.planning.memory_model import training_memory
from loragrid.study.study_file import Study, load_study
from plan import make_plan
from tests.fixtures.studies import changed, without_shapes


def three_sizes() -> Study:
    """The t4 study with its third model on the axis."""
    return changed(load_study("t4"), grid__axes__model=["llama-1b", "llama-3b", "gemma-270m"])


def requests_of(study: Study, *, session_minutes: float | None = None, results: Path = Path("nowhere")) -> dict:
    return resource_requests(study, study.cells, results=results, session_minutes=session_minutes)


def test_requests_follow_the_predicted_memory() -> None:
    study = three_sizes()
    cells = study.cells
    asked = requests_of(study)
    device = planned_device(study.plan, detect=False)
    for cell in cells:
        shape = find_shape(study.models[cell.model])
        # On a card that has room for it, all rows of an update run at once and keep their activations.
        setup = training_setup(cell.settings, device)
        rows = cell.settings.per_device * cell.settings.accumulation
        memory = training_memory(shape, replace(setup, per_device=rows, checkpointing=False))
        # A T4 has no room for a second job beside one that keeps it busy.
        least = BUSY_SHARE * device.vram_mib
        assert asked["train"][cell.run]["vram_mib"] == round(max(MEMORY_MARGIN * memory.total_mib, least))
        assert asked["score"][cell.base]["vram_mib"] >= asked["score"][cell.run]["vram_mib"]
    unfolded = requests_of(changed(study, training__fold_batches=False))
    kept = {cell.model: unfolded["train"][cell.run]["vram_mib"] for cell in cells if cell.settings.batch == (2, 4)}
    assert kept["llama-1b"] < asked["train"][cells[0].run]["vram_mib"] / 3
    # A search's trials take at most 4 rows at a time and compute activations again, and have the base case's rank.
    wide = next(cell for cell in cells if cell.settings.batch == (4, 8) and cell.model == "llama-1b")
    shape = find_shape(study.models[wide.model])
    memory = training_memory(shape, training_setup(wide.settings, device))
    assert asked["tune"]["tune"]["vram_mib"] == round(max(MEMORY_MARGIN * memory.total_mib, least))
    of_three = requests_of(changed(study, tune__workers=3))
    assert of_three["tune"]["tune"]["vram_mib"] == pytest.approx(3 * asked["tune"]["tune"]["vram_mib"], abs=3)
    asked = requests_of(without_shapes(study, "llama-3b"))  # an unknown model reserves the whole GPU
    of_model = {cell.model: asked["train"][cell.run]["vram_mib"] for cell in cells}
    assert of_model["llama-3b"] == WHOLE_GPU_MIB > of_model["llama-1b"]
    # On a large card two runs of the small model may share it.
    on_h100 = requests_of(changed(three_sizes(), plan__card="H100"))
    small = next(cell for cell in cells if cell.model == "gemma-270m" and cell.settings.batch == (2, 4))
    assert 2 * on_h100["train"][small.run]["vram_mib"] < 81_559


def test_a_limit_of_the_memory_lowers_requests_so_that_jobs_fit_side_by_side() -> None:
    """Half of an H100 for each run: the requests are of the layouts that training chooses for it, and are kept below."""
    study = changed(three_sizes(), plan__card="H100", base_case__backend="trl")
    limit = 40_000
    free, limited = requests_of(study), requests_of(changed(study, plan__vram_mib=limit))
    run = study.cells[0]
    assert free["train"][run.run]["vram_mib"] > limit >= limited["train"][run.run]["vram_mib"] > limit / 2
    shape = find_shape(study.models[run.model])
    setup = gpu_training_setup(run.settings, bf16=True)
    layout = gpu_layout(shape, setup, accumulation=run.settings.accumulation, fold=True, memory_mib=limit)
    needed = training_memory(shape, with_layout(setup, layout)).total_mib
    assert limited["train"][run.run]["vram_mib"] == round(max(MEMORY_MARGIN * needed, BUSY_SHARE * limit))
    # Two of them fit the card.
    assert 2 * limited["train"][run.run]["vram_mib"] <= 81_559


def test_jobs_request_twice_the_planned_time_and_at_most_a_session(tmp_path: Path) -> None:
    study = changed(three_sizes(), plan__session_minutes=None)
    cells, rows = (
        study.cells,
        {row["run"]: row for row in make_plan(study=study, results=tmp_path, worker=False)["cells"]},
    )
    long, short = requests_of(study), requests_of(study, session_minutes=55)
    for stage in ("train", "score"):
        for cell in cells:
            minutes = STARTUP_MINUTES + 2 * 60 * rows[cell.run][f"{stage}_hours"]
            assert long[stage][cell.run]["runtime"] == math.ceil(minutes)
            assert short[stage][cell.run]["runtime"] == min(math.ceil(minutes), 55)
    assert short["tune"]["tune"]["runtime"] == 55 and long["tune"]["tune"]["runtime"] == 240
    of_model = {cell.model: long["train"][cell.run]["mem_mb"] for cell in cells}
    assert of_model["gemma-270m"] < of_model["llama-1b"] < of_model["llama-3b"] < 20_000
    assert not any(amount % 100 for amount in of_model.values())
    unknown_speed = requests_of(changed(study, plan__card=None))
    assert {request["runtime"] for request in unknown_speed["train"].values()} == {240}


def test_a_gpu_of_the_login_node_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = requests_of(load_study("t4"))
    monkeypatch.setattr(gpu_cards, "detect_gpu", lambda: ("NVIDIA H200", 143771))
    assert requests_of(load_study("t4")) == before


def test_an_unknown_card_is_named_when_the_workflow_is_read() -> None:
    study = changed(load_study("t4"), plan__card="T5")
    with pytest.raises(UserError, match=r"the card is not in config/cards\.yaml \('T5'\)"):
        requests_of(study)


def test_target_modules_that_a_model_lacks_are_named_when_the_workflow_is_read() -> None:
    study = load_study("t4")
    check_study_modules(study, study.cells)
    study = changed(study, base_case__target_modules=["q_proj", "query"])
    with pytest.raises(
        UserError, match=r"target_modules: a llama model has no module 'query'\. Fix: choose from q_proj"
    ):
        check_study_modules(study, study.cells)
    unknown = without_shapes(study)
    check_study_modules(unknown, unknown.cells)  # the train stage reports it


def test_a_rank_that_a_layer_cannot_have_is_named_when_the_workflow_is_read() -> None:
    study = changed(load_study("t4"), base_case__method="oft", base_case__rank=24, grid__axes={})
    with pytest.raises(UserError, match=r"rank: the method oft rotates blocks of 24 inputs, and .*q_proj has 2048"):
        check_study_modules(study, study.cells)
    space = {"method": {"choices": ["lora", "oft"]}, "rank": {"low": 2, "high": 8}}
    study = changed(load_study("t4"), tune__space="mine", tune__spaces={"mine": space})
    with pytest.raises(UserError, match="oft rotates blocks of 3 inputs"):
        check_study_modules(study, study.cells)


def test_reading_the_workflow_predicts_without_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from loragrid.planning.job_resources import resource_requests; "
        "from loragrid.study.study_file import load_study; s = load_study('t4'); "
        "resource_requests(s, s.cells, results=Path('nowhere'), session_minutes=None); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts").returncode == 0


def test_requests_depend_on_every_setting_that_matters() -> None:
    axes = {"precision": ["16bit", "32bit"], "max_length_tokens": [512, 2048], "method": ["lora", "full", "dora"]}
    axes |= {"optimizer": ["adamw_8bit", "adafactor"], "learning_rate": [1e-4, 2e-4], "weight_decay": [0.0, 0.01]}
    study = changed(load_study("t4"), grid__axes=axes, base_case__precision="16bit", base_case__backend="trl")
    asked = requests_of(study)["train"]
    memory = {next(iter(cell.departs.items()), None): asked[cell.run]["vram_mib"] for cell in study.cells}
    base = memory.pop(None)
    assert memory["learning_rate", 1e-4] == memory["weight_decay", 0.0] == base
    assert memory["max_length_tokens", 512] < base < memory["method", "dora"] < memory["method", "full"]
    assert memory["optimizer", "adafactor"] < base < memory["precision", "32bit"]


def test_a_large_grid_has_few_different_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = {"learning_rate": [i * 1e-5 for i in range(1, 21)], "seed": [*range(20), 3407], "rank": [8, 16]}
    study = changed(load_study("t4"), grid__design="factorial", grid__axes=axes)
    made = []
    monkeypatch.setattr(job_resources, "training_memory", lambda *given: made.append(given) or training_memory(*given))
    asked = requests_of(changed(study, tune=None))
    assert len(asked["train"]) == len(study.cells) == 20 * 21 * 2 and len(made) == 2


def test_a_search_requests_its_largest_trial() -> None:
    changes = {"precision": "16bit", "backend": "trl", "max_length_tokens": 8192}
    study = changed(load_study("t4"), **{f"base_case__{name}": value for name, value in changes.items()})

    def asked(**space: dict) -> int:
        spaces = {"original": {"learning_rate": {"low": 1e-4, "high": 1e-3, "log": True}} | space}
        return requests_of(changed(study, tune__spaces=spaces))["tune"]["tune"]["vram_mib"]

    base = asked()
    assert asked(rank={"choices": [4, 16]}, batch={"choices": [[1, 4], [2, 2]]}) == base
    assert asked(rank={"low": 4, "high": 64}) > base < asked(batch={"choices": [[4, 1], [2, 2]]})
    assert asked(method={"choices": ["ia3", "full"]}) > base > asked(method={"choices": ["ia3"]})


def test_a_run_on_two_gpus_asks_for_both_and_for_the_memory_of_two_processes(tmp_path: Path) -> None:
    t4 = load_study("t4")
    one, two = (requests_of(changed(t4, training__gpus=gpus, base_case__backend="trl")) for gpus in (1, 2))
    for run, asked in one["train"].items():
        both = two["train"][run]
        assert (asked["gpu"], both["gpu"]) == (1, 2) and both["mem_mb"] == 2 * asked["mem_mb"]
        assert both["runtime"] <= asked["runtime"] and both["vram_mib"] <= asked["vram_mib"]
        assert two["score"][run]["gpu"] == 1
    assert two["tune"]["tune"]["gpu"] == 1 and two["tune"]["tune"]["mem_mb"] == one["tune"]["tune"]["mem_mb"]
