"""The device that a plan is made for, the table of cards, and warnings for this machine's device."""

from dataclasses import replace
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.models.find_shape import find_shape
from loragrid.models.flops import training_per_token
from loragrid.models.trained_weights import Trainable
from loragrid.planning import gpu_cards
from loragrid.planning.forecast import device_warnings
from loragrid.planning.gpu_cards import PlannedDevice, planned_device, read_cards
from loragrid.study.sections import Plan
from loragrid.study.study_file import Study, load_study
from plan import make_plan
from tests.fixtures.studies import changed

ASKED = Plan(card="T4", vram_mib=None, session_minutes=None, rows=None, row_tokens=1)


def test_this_machines_gpu_takes_precedence_over_the_study_files_card(
    t4: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_cards, "detect_gpu", lambda: ("NVIDIA L4", 23034))
    device = planned_device(ASKED)
    assert device.found and device.name == "NVIDIA L4" and device.vram_mib == 22700 and device.bf16
    assert device.rate_tflops == pytest.approx(121 * 11.5 / 65) and "not measured" in device.rate_from
    monkeypatch.setattr(gpu_cards, "detect_gpu", lambda: ("NVIDIA Unheard-Of 9", 50_000))
    device = planned_device(ASKED)
    assert device.vram_mib == 50_000 and device.rate_tflops is None
    with pytest.raises(
        UserError, match=r"plan\.card: the card is not in config/cards\.yaml \('T5'\)\. Fix: use one of T4"
    ):
        planned_device(replace(ASKED, card="T5"))


def test_a_starting_study_warns_of_cells_that_will_not_fit(t4: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_warnings(t4, t4.cells, planned_device(ASKED)) == []  # the card is not here
    monkeypatch.setattr(gpu_cards, "detect_gpu", lambda: ("Tesla T4", 15360))
    assert device_warnings(t4, t4.cells, planned_device(ASKED)) == []
    by_trl = changed(t4, base_case__backend="trl", base_case__max_length_tokens=8192)
    lines = device_warnings(by_trl, by_trl.cells, planned_device(ASKED))
    assert any("batch4x8" in line and "Tesla T4 has 14,913" in line for line in lines)
    monkeypatch.setattr(gpu_cards, "detect_gpu", lambda: None)
    fp16 = changed(t4, base_case__compute_dtype="fp16")
    assert device_warnings(fp16, fp16.cells, planned_device(ASKED)) == []
    (line,) = device_warnings(fp16, fp16.cells, planned_device(replace(ASKED, card=None)))
    assert line.startswith("compute_dtype: there is no GPU, and a CPU does not train in fp16")


def test_every_card_names_its_sources_and_the_t4_rate_follows_from_public_runs() -> None:
    for card in read_cards().values():
        assert card.memory_from and card.peak_from
        assert (card.training_tflops is None) == (card.training_from is None)
    models = load_study("t4").models
    rates = []
    for key, seconds in (("llama-1b", 2.65), ("llama-3b", 7.44)):
        lora = Trainable(method="lora", rank=16, target_modules="all-linear")
        parts = training_per_token(find_shape(models[key]), lora, row_tokens=550, checkpointing=True)
        rates.append(8 * 550 * sum(parts.values()) / seconds / 1e12)
    assert read_cards()["T4"].training_tflops == pytest.approx(sum(rates) / 2, rel=0.01)


def test_a_model_in_float32_is_planned_by_the_cards_float32_peak(t4: Study, tmp_path: Path) -> None:
    """Gemma 3 overflows float16, and a T4 has no bfloat16; an L4 has."""
    of_model = {row["model"]: row for row in make_plan(study=t4, results=tmp_path)["cells"]}
    assert of_model["gemma-270m"]["tflops"] == pytest.approx(8.1 / 2) and of_model["llama-1b"]["tflops"] == 11.5
    assert "float32 peak of 8.1" in of_model["gemma-270m"]["train_from"]
    rows = make_plan(study=changed(t4, plan__card="L4"), results=tmp_path)["cells"]
    assert len({row["tflops"] for row in rows}) == 1  # the L4 computes both in bfloat16
    rows = make_plan(study=changed(t4, base_case__compute_dtype="fp32"), results=tmp_path)["cells"]
    assert [row["tflops"] for row in rows] == pytest.approx([8.1 / 2] * len(rows))


def test_threads_without_a_cpu_of_their_own_make_the_plan_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_cards, "usable_cpus", lambda: 2)
    cpu = PlannedDevice(
        kind="cpu",
        name="CPU",
        names=(),
        found=True,
        vram_mib=None,
        vram_from="",
        bf16=True,
        rate_tflops=None,
        rate_from="",
    )
    two, many = (gpu_cards.with_measured_cpu(cpu, threads=threads) for threads in (2, 1024))
    assert two.rate_tflops == many.rate_tflops and two.rate_from == many.rate_from
