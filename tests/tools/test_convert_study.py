"""Study files of the earlier form, turned into the present one."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.study.study_file import Study, load_study
from tools.convert_study import main

OLD = Path(__file__).parent / "old_studies"
TRAINING = ("backend", "budget", "weight_decay", "schedule", "optimizer", "max_grad_norm", "dropout", "target_modules")
TRAINING += ("compute_dtype", "packing", "threads")


def converted(old: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The study that the tool writes for old settings."""
    (folder / "mine.yaml").write_text(yaml.safe_dump(old))
    monkeypatch.setattr("sys.argv", ["convert_study.py", str(folder / "mine.yaml")])
    main()
    return load_study(str(folder / "mine-converted.yaml"))


def old_points(old: dict[str, Any]) -> list[dict[str, Any]]:
    """The base case and every single departure from it, as the earlier grid had them."""
    base, points = old["base_case"], [old["base_case"]]
    for axis in base:
        points += [base | {axis: value} for value in old["grid"][axis] if value != base[axis]]
    return points


@pytest.mark.parametrize("name", ["demo", "t4"])
def test_the_converted_study_has_the_settings_of_the_old_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    old = yaml.safe_load((OLD / f"{name}.yaml").read_text())
    study = converted(old, tmp_path, monkeypatch)
    assert f"mine-converted.yaml: {len(study.cells)} runs in the new form" in capsys.readouterr().out
    found = [
        {axis: getattr(cell.settings, axis) for axis in old["base_case"]} | {"batch": list(cell.settings.batch)}
        for cell in study.cells
    ]
    expected = old_points(old)
    assert sorted(map(str, found)) == sorted(str({axis: point[axis] for axis in found[0]}) for point in expected)
    training = old["training"]
    for cell in study.cells:
        settings = cell.settings
        assert {key: getattr(settings, key) for key in TRAINING if key != "budget"} == {
            key: training[key] for key in TRAINING if key != "budget"
        }
        assert {settings.budget.unit: settings.budget.amount} == training["budget"]
        assert settings.alpha == settings.rank and settings.warmup.steps == training["warmup_steps"]
        assert settings.precision == old["models"][cell.model]["precision"]
        assert (settings.max_length_tokens, settings.loss_on) == (
            old["data"]["max_length_tokens"],
            old["data"]["loss_on"],
        )
    assert (study.heldout.rows, study.heldout.seed) == (old["data"]["heldout_rows"], old["data"]["split_seed"])
    for section in ("scoring", "compare", "plan"):
        # Paths became absolute.
        assert {key: value for key, value in study.yaml[section].items() if key in old[section]} == {
            key: str(ROOT / value) if key == "qualitative" else value for key, value in old[section].items()
        }
    kept = ("save_steps", "save_minutes", "keep_checkpoints", "session_minutes", "report_to")
    assert {key: getattr(study.training, key) for key in kept} == {key: training[key] for key in kept}
    assert study.tune.validation_rows == old["tune"]["heldout_rows"]
    for key in ("trials", "evaluations", "startup_trials", "pruner", "space"):
        assert study.yaml["tune"][key] == old["tune"][key]
    written = (tmp_path / "mine-converted.yaml").read_text()
    assert "dropout" not in written and "keep_checkpoints" not in written  # left to their defaults


def test_an_old_file_is_refused_with_a_line_that_names_the_tool() -> None:
    with pytest.raises(UserError, match=r"form of an earlier version.*Fix: python scripts/tools/convert_study\.py"):
        load_study(str(OLD / "demo.yaml"))


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine-converted.yaml").write_text("mine")
    old = yaml.safe_load((OLD / "demo.yaml").read_text())
    with pytest.raises(UserError, match=r"mine-converted\.yaml: exists already"):
        converted(old, tmp_path, monkeypatch)
    assert (tmp_path / "mine-converted.yaml").read_text() == "mine"


def test_seeds_precisions_and_batches_keep_their_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = yaml.safe_load((OLD / "demo.yaml").read_text())
    old["grid"]["seed"] = [3407, 1, 2]
    old["models"]["gemma-s"]["precision"] = "16bit"
    old["tune"]["spaces"]["demo"]["batch"] = {"choices": [1, 2]}
    study = converted(old, tmp_path, monkeypatch)
    assert [cell.settings.seed for cell in study.cells if not cell.arm] == [3407, 1, 2]
    assert {cell.settings.precision for cell in study.cells if cell.model == "gemma-s"} == {"16bit"}
    assert {cell.settings.precision for cell in study.cells if cell.model != "gemma-s"} == {"32bit"}
    space = study.tune.spaces["demo"]
    assert space["batch"]["choices"] == ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4))
    assert space["alpha"]["choices"] == ("0.5 * rank", "1 * rank", "2 * rank")
    assert [choice["steps"] for choice in space["warmup"]["choices"]] == list(range(11))


def test_what_cannot_be_converted_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = yaml.safe_load((OLD / "demo.yaml").read_text())
    factorial = copy.deepcopy(old)
    factorial["grid"]["design"] = "factorial"
    factorial["models"]["gemma-s"]["precision"] = "16bit"
    with pytest.raises(UserError, match=r"mine\.yaml: grid\.model: a factorial grid of models in several precisions"):
        converted(factorial, tmp_path, monkeypatch)
    with pytest.raises(UserError, match="not a complete study file of the earlier form"):
        converted({key: value for key, value in old.items() if key != "training"}, tmp_path, monkeypatch)


def test_what_other_trainers_write_is_read_in_an_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = yaml.safe_load((OLD / "demo.yaml").read_text())
    old["training"] |= {"alpha": [8, 16], "target_modules": "q_proj,v_proj", "warmup_ratio": 0.05}
    del old["training"]["warmup_steps"]
    study = converted(old, tmp_path, monkeypatch)
    assert study.base_case.alpha == 8 and study.grid.axes["alpha"] == (8, 16)
    assert study.base_case.target_modules == ("q_proj", "v_proj") and study.base_case.warmup.ratio == 0.05


def test_a_model_may_be_called_by_a_number_in_an_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (OLD / "demo.yaml").read_text()
    assert "llama-s" in text
    (tmp_path / "mine.yaml").write_text(
        text.replace("models/llama-s", "models/KEPT").replace("llama-s", "8").replace("KEPT", "llama-s")
    )
    monkeypatch.setattr("sys.argv", ["convert_study.py", str(tmp_path / "mine.yaml")])
    main()
    study = load_study(str(tmp_path / "mine-converted.yaml"))
    assert "8" in study.models and study.base_case.model == "8"
