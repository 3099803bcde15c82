"""liger's kernels, by a stand-in: the same losses, in training steps only, refused where they cannot work."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.runtime import optional_packages, provenance
from loragrid.training.backends.chunked_loss import unpatch
from loragrid.training.backends.liger_kernels import KEY, LigerKernels, family_kernels
from loragrid.training.backends.recipe import make_recipe
from loragrid.training.fingerprint import LIGER, departures
from tests.fixtures.stand_in_liger import install
from tests.fixtures.train_toys import Toy, make_toy, rows_of
from tests.training.test_packing import load

ON = {"training__liger_kernels": True}


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = provenance.versions() | {"liger_kernel": "0.8.5"}
    monkeypatch.setattr(provenance, "versions", lambda: dict(installed))
    for module in ("backends.liger_kernels", "run_record"):
        monkeypatch.setattr(f"loragrid.training.{module}.versions", lambda: dict(installed))


@pytest.fixture(params=["padding-free", "padded"])
def padding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "padded":
        monkeypatch.setattr("loragrid.training.backends.trl.enable_padding_free", lambda *_, **__: None)
    return request.param


def test_a_run_equals_one_without_and_is_measured_without(
    toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: None, padding: str
) -> None:
    """Update by update in float32; the first held-out loss, of equal weights, bit by bit."""
    from transformers.models.llama import modeling_llama

    names = dict(vars(modeling_llama))
    changes = {"base_case__dropout": 0.0, "base_case__budget": {"steps": 4}}
    plain = make_toy(tmp_path, toy_llama, **changes).train(tmp_path / "plain")
    stand_in = install(monkeypatch)
    toy = make_toy(tmp_path, toy_llama, **changes, **ON)
    record = toy.train(tmp_path / "liger")
    losses = [[float(row["loss"]) for row in rows_of(tmp_path / name)] for name in ("plain", "liger")]
    assert len(losses[0]) > 5 and losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][0] == losses[1][0] and rows_of(tmp_path / "liger")[0]["kind"] == "heldout"
    # One pass over a probe without gradients, then 4 updates of 2 batches, in each of 2 layers.
    layers = load(toy_llama, "sdpa").config.num_hidden_layers
    assert stand_in.calls["mlp"] == stand_in.calls["rope"] == [False] * layers + [True] * 4 * 2 * layers
    assert stand_in.calls["loss"] == [False] + [True] * 8
    assert record.attention == {"padding-free": "per_sample", "padded": "sdpa"}[padding]
    assert "trained with liger 0.8.5: rope, fused_linear_cross_entropy, rms_norm, swiglu" in record.notes
    assert record.versions["liger_kernel"] == "0.8.5" and record.run == plain.run
    assert all(vars(modeling_llama)[name] is value for name, value in names.items())


def test_a_checkpoint_is_resumed_with_the_kernels_that_wrote_it(toy: Toy, version: None) -> None:
    recipe = make_recipe(toy.study, toy.cell, device="cpu")
    assert departures(recipe) == {} and departures(replace(recipe, liger=True)) == {LIGER: "0.8.5"}


def test_kernels_that_compute_another_loss_or_fail_are_refused(
    toy_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, factor=1.5)
    with pytest.raises(UserError, match=rf"{KEY}: liger computes another loss for this llama \(.* without it\)\. Fix"):
        LigerKernels(load(toy_llama, "sdpa"), compute_dtype="fp32")
    stand_in = install(monkeypatch)
    stand_in.factor = None
    with pytest.raises(UserError, match=rf"{KEY}: liger's kernels fail on this llama here \(.*\)\. Fix: set it to"):
        LigerKernels(load(toy_llama, "sdpa"), compute_dtype="fp32")


def test_the_next_user_of_the_base_gets_the_models_own_code(toy_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    network = load(toy_llama, "sdpa")
    kernels = LigerKernels(network, compute_dtype="bf16")
    assert "forward" in vars(network) and not any("forward" in vars(layer) for layer in network.model.modules())
    with kernels.in_place():
        assert all("forward" in vars(layer.mlp) for layer in network.model.layers)
    unpatch(network)
    assert not any("forward" in vars(layer) for layer in network.modules())


def test_a_family_without_kernels_or_without_the_loss_is_refused_before_the_base_is_loaded(
    toy_gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    toy = make_toy(tmp_path, toy_gemma, **ON)
    with pytest.raises(UserError, match=rf"{KEY}: liger has no kernels for this family \(gemma3_text\)\. Fix: set it"):
        make_recipe(toy.study, toy.cell, device="cpu")
    with pytest.raises(UserError, match="no fused loss for this family"):
        family_kernels("granite")


def test_a_liger_that_cannot_be_imported_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    with pytest.raises(
        UserError, match=r"liger_kernel cannot be imported \(.*\)\. Fix: pip install -r requirements-gp"
    ):
        family_kernels("llama")


REFUSED: dict[str, tuple[str, Callable]] = {
    "a CPU": (r"toy\.yaml: training\.liger_kernels: the kernels need a CUDA GPU \(device cpu\)\. Fix", lambda name: 1),
    "no package": (
        r"needs liger_kernel, which is not installed\. Fix: pip install -r requirements-gpu",
        lambda name: None,
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_machine_without_them_is_refused(
    reason: str, toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, found = REFUSED[reason]
    monkeypatch.setattr(optional_packages, "find_spec", found)
    toy = make_toy(tmp_path, toy_llama, **ON)
    with pytest.raises(UserError, match=line):
        make_recipe(toy.study, toy.cell, device="cpu" if reason == "a CPU" else "cuda")


def test_the_workflow_refuses_a_machine_without_a_gpu_before_any_job(
    toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loragrid.workflow import preflight

    monkeypatch.setattr(preflight, "visible_gpu", lambda: None)
    with pytest.raises(UserError, match=r"toy\.yaml: training\.liger_kernels: the kernels need a CUDA GPU"):
        preflight.check_machine(make_toy(tmp_path, toy_llama, **ON).study)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"base_case__backend": "unsloth"}, r"only the backend trl trains with them \(backend unsloth\)"),
        ({"base_case__backend": "auto"}, r"only the backend trl trains with them \(backend auto\)"),
        ({"grid__axes": {"backend": ["unsloth"]}}, r"only the backend trl trains with them \(backend unsloth\)"),
        ({"training__gpus": 2}, r"they train a run on one GPU only \(training\.gpus 2\)"),
    ],
)
def test_a_study_that_cannot_have_them_is_refused(changes: dict, found: str, toy_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"toy\.yaml: training\.liger_kernels: {found}\. Fix: "):
        make_toy(tmp_path, toy_llama, **ON, **changes)


def test_they_change_no_name_of_a_run(toy_llama: Path, tmp_path: Path) -> None:
    assert make_toy(tmp_path, toy_llama, **ON).cell.run == make_toy(tmp_path, toy_llama).cell.run
