"""A finished run whose files were changed since: refused where they are read, and trained again where that is the way."""

import json
import shutil
from pathlib import Path

import pytest

from loragrid.comparing.diagnosing.run_evidence import adapter_distance, read_loss_path
from loragrid.data.training_data import load_training_data
from loragrid.errors import UserError
from loragrid.records.record import RunRecord, read_record
from loragrid.records.seal import changed_files, digests_of, sealed_files, write_seal
from loragrid.scoring.subjects import check_weights
from tests.fixtures.train_toys import Toy


@pytest.fixture
def run(reference: Path, tmp_path: Path) -> Path:
    return shutil.copytree(reference, tmp_path / "run")


def edit_config(run: Path, **changes: object) -> None:
    file = run / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_run_is_sealed_with_its_record(run: Path) -> None:
    assert changed_files(run) == []
    assert {"losses.csv", "heldout_losses.json", "finished.json", "record.json"} < sealed_files(run).keys()
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} < sealed_files(run).keys()
    check_weights(run / "adapter", read_record(run / "record.json", RunRecord))


def test_a_changed_adapter_configuration_is_refused(run: Path) -> None:
    """Alpha is not in the weights, but another alpha changes every score."""
    record = read_record(run / "record.json", RunRecord)
    edit_config(run, lora_alpha=40)
    for read in (lambda: check_weights(run / "adapter", record), lambda: adapter_distance(run / "adapter")):
        with pytest.raises(UserError, match=r"adapter_config\.json: changed since it was written"):
            read()


def test_changed_losses_are_refused(run: Path) -> None:
    file = run / "losses.csv"
    file.write_text(file.read_text().replace("train", "heldout", 1))
    with pytest.raises(UserError, match=r"losses\.csv: changed since it was written"):
        read_loss_path(file)


@pytest.mark.parametrize("change", ["changed", "removed"])
def test_rows_are_not_trained_on_if_the_held_out_ones_are_others(toy: Toy, tmp_path: Path, change: str) -> None:
    data = shutil.copytree(toy.data, tmp_path / "data")
    text = (data / "card.json").read_text()
    write_seal(data, digests_of(data, data.glob("*.parquet")), record="card.json", text=text)
    load_training_data(data)
    file = data / "heldout.parquet"
    if change == "changed":
        file.write_bytes(file.read_bytes() + b" ")
    else:
        file.unlink()
    with pytest.raises(UserError, match=rf"heldout\.parquet: {change} since it was written"):
        load_training_data(data)


def test_a_card_beside_the_weights_is_no_change(run: Path, toy: Toy, capsys: pytest.CaptureFixture) -> None:
    """Also not for the finished copy, by which a run whose record Snakemake deleted is not trained again."""
    (run / "adapter" / "README.md").write_text("# A card")
    (run / "record.json").unlink()
    toy.train(run)
    assert "only its record is written again" in capsys.readouterr().err
    assert changed_files(run) == []


def test_a_run_without_its_record_and_with_changed_files_is_trained_again(run: Path, toy: Toy, reference: Path) -> None:
    (run / "record.json").unlink()
    edit_config(run, lora_alpha=40)
    toy.train(run)
    assert changed_files(run) == []
    own, other = (folder / "adapter" / "adapter_config.json" for folder in (run, reference))
    assert own.read_bytes() == other.read_bytes()
