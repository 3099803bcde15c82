"""The backend `unsloth` in its version for CPUs.

test_unsloth.py runs these in an interpreter that has unsloth, in this order: the sessions of the certificate are forks,
which are best made before anything was computed.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from loragrid.paths import SCRIPTS
from loragrid.training.backends.unsloth_loading import import_unsloth

import_unsloth(compute_dtype="bf16")  # before any fixture imports transformers

from loragrid.errors import UserError  # noqa: E402
from loragrid.training.backends.factory import choose_backend  # noqa: E402
from loragrid.training.backends.recipe import make_recipe  # noqa: E402
from loragrid.training.backends.sft_settings import sft_settings  # noqa: E402
from loragrid.training.backends.unsloth import _notes  # noqa: E402
from loragrid.training.backends.unsloth_checks import (  # noqa: E402
    COMPARED_SETTINGS,
    refuse_other_settings,
)
from loragrid.training.kill_and_resume import certify_resume  # noqa: E402
from tests.fixtures.backend_trace import VARIANTS, can_train, trace  # noqa: E402
from tests.fixtures.train_toys import Toy, make_toy  # noqa: E402


@pytest.fixture(scope="module")
def toy(toy_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """With dropout, and more than one pass over the rows."""
    return make_toy(
        tmp_path_factory.mktemp("toy"),
        toy_llama,
        base_case__backend="unsloth",
        training__save_steps=3,
    )


@pytest.fixture(scope="module")
def trained(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    toy.train(out)
    return out


def test_killed_and_resumed_it_is_the_undisturbed_run(toy: Toy, tmp_path: Path) -> None:
    from tools.certify import import_training_libraries

    import_training_libraries("unsloth")
    found = certify_resume(toy.train, work=tmp_path, kills=4, seed=5, save_steps=3)
    assert found["holds"] and found["kills"] == 4 and all(found["equal"].values())


def test_a_fresh_process_makes_the_same_adapter(toy: Toy, trained: Path, tmp_path: Path) -> None:
    """train.py itself: it imports unsloth in time, and compiled code leaves nothing in the run's folder."""
    command = [
        sys.executable,
        SCRIPTS / "train.py",
        "--study",
        toy.study.path,
        "--run",
        toy.cell.run,
    ]
    done = subprocess.run(
        [*command, "--data", toy.data, "--out", tmp_path / "run"],
        env=os.environ | {"PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # unsloth's own complaint about the order of imports
    assert "should be imported before" not in (done.stdout + done.stderr)
    adapters = [folder / "adapter" / "adapter_model.safetensors" for folder in (tmp_path / "run", trained)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in trained.iterdir()}
    assert {path.name for path in trained.iterdir()} == {
        "finished.json",
        *("adapter", "losses.csv", "history.jsonl", "record.json", "sealed.json", "trainer.lock"),
    }


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if can_train(variant)])
def test_trace(toy_llama: Path, tmp_path: Path, variant: str) -> None:
    """Writes the trace that test_unsloth.py compares with the other backend's."""
    found = trace("unsloth", variant, model=toy_llama, folder=tmp_path)
    Path(os.environ["LORAGRID_TRACES"], f"{variant}.json").write_text(json.dumps(found))


def test_a_base_is_loaded_again_for_each_run(toy: Toy) -> None:
    """For a search: whatever one run did to the model, the next begins with the same weights."""
    backend, recipe = (
        choose_backend("unsloth", device="cpu"),
        make_recipe(toy.study, toy.cell, device="cpu"),
    )
    base, seen = backend.load(toy.study.base_entry(toy.cell), recipe=recipe), []
    for _ in range(2):
        model = backend.adapt(base, recipe=recipe)
        seen.append({name: value.tolist() for name, value in model.named_parameters()})
        for value in model.parameters():
            value.data.add_(1.0)
        base = backend.release(base, model)
        assert base.model is None
    assert seen[0] == seen[1]


def test_trials_of_a_search_train_one_after_another(toy_llama: Path, tmp_path: Path) -> None:
    """The same trial three times: each is trained, and to the same losses."""
    from loragrid.runtime.session import SessionClock, StopSignals
    from loragrid.searching.trials import TrialRunner
    from tests.fixtures.search_toys import MODEL_TUNE

    toy = make_toy(tmp_path, toy_llama, base_case__backend="unsloth", tune=MODEL_TUNE)
    runner, results = TrialRunner(toy.study, toy.data), []
    for _ in range(3):
        given = {
            "name": "trial",
            "folder": tmp_path,
            "stop": StopSignals(),
            "clock": SessionClock(None),
        }
        results.append(runner.run({}, **given, should_prune=lambda part, loss: False))
    assert [(result.outcome, result.reason) for result in results] == [("complete", None)] * 3
    assert results[0].curve == results[1].curve == results[2].curve


def test_packed_samples_do_not_see_each_other(toy_llama: Path, tmp_path: Path) -> None:
    """The first update's loss, of rows packed and of rows padded."""
    whole = {
        "base_case__backend": "unsloth",
        "base_case__budget": {"steps": 1},
        "base_case__dropout": 0.0,
    }
    packed = make_toy(tmp_path / "a", toy_llama, **whole, base_case__packing=True, base_case__batch=[2, 9])
    padded = make_toy(tmp_path / "b", toy_llama, **whole, base_case__batch=[5, 6])
    records = [toy.train(tmp_path / name) for toy, name in ((packed, "packed"), (padded, "padded"))]
    assert records[0].final_train_loss == pytest.approx(records[1].final_train_loss, rel=1e-5)
    assert records[0].tokens == records[1].tokens and records[0].padding_share == 0.0 < records[1].padding_share


def test_gemma_trains(toy_gemma: Path, tmp_path: Path) -> None:
    toy = make_toy(tmp_path, toy_gemma, base_case__backend="unsloth", base_case__budget={"steps": 2})
    record = toy.train(tmp_path / "run")
    assert record.status == "finished" and record.notes[0] == "unsloth: weights in float32, trained in fp32"


@pytest.mark.parametrize("precision", ["16bit", "4bit"] if find_spec("bitsandbytes") else ["16bit"])
def test_bases_in_16_and_4_bits_train(toy_llama: Path, tmp_path: Path, precision: str) -> None:
    changes = {"base_case__backend": "unsloth", "base_case__budget": {"steps": 2}}
    toy = make_toy(tmp_path, toy_llama, **changes, base_case__precision=precision)
    record = toy.train(tmp_path / "run")
    layers = ", layers in 4 bits" if precision == "4bit" else ""
    assert record.status == "finished" and record.notes[0] == f"unsloth: weights in bfloat16{layers}, trained in fp32"


def test_another_precision_or_a_broken_folder_is_refused(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """unsloth itself would take another precision without an error."""
    backend, recipe = (
        choose_backend("unsloth", device="cpu"),
        make_recipe(toy.study, toy.cell, device="cpu"),
    )
    entry = toy.study.base_entry(toy.cell)
    with monkeypatch.context() as patch:
        patch.setattr("unsloth_zoo.cpu.loader.cpu_bnb_4bit_supported", lambda: False)
        with pytest.raises(
            UserError,
            match="precision is 4bit in the study file, and unsloth loaded it as bfloat16",
        ):
            backend.load(replace(entry, precision="4bit"), recipe=recipe)
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        backend.load(replace(entry, path=str(toy.data)), recipe=recipe)


def test_every_setting_that_determines_the_result_is_compared(toy: Toy, tmp_path: Path) -> None:
    recipe = make_recipe(toy.study, toy.cell, device="cpu")
    wanted = sft_settings(recipe, folder=tmp_path)
    arguments = choose_backend("unsloth", device="cpu").config(recipe, folder=tmp_path)
    refuse_other_settings(arguments, wanted, unless=set())
    for name in COMPARED_SETTINGS:
        kept = getattr(arguments, name)
        setattr(arguments, name, "another")
        with pytest.raises(UserError, match=f"with {name} another where the study asks for"):
            refuse_other_settings(arguments, wanted, unless=set())
        refuse_other_settings(arguments, wanted, unless={name})
        setattr(arguments, name, kept)


def test_float32_instead_of_fp16_is_noted(toy: Toy) -> None:
    """As for a Gemma on a GPU without bf16: its trainer would need that GPU, its notes do not."""
    recipe = make_recipe(toy.study, toy.cell, device="cpu")
    model = choose_backend("unsloth", device="cpu").load(toy.study.base_entry(toy.cell), recipe=recipe).model
    notes = _notes(model, replace(recipe, compute_dtype="fp16", device="cuda"), forced_float32=True)
    assert notes[0].endswith("trained in fp32") and "in float32 where fp16 was asked for" in notes[1]


def test_order_of_imports_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "unsloth")
    with pytest.raises(RuntimeError, match="before unsloth"):
        import_unsloth()
