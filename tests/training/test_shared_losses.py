"""Held-out losses that are measured once: the base's for all runs and its score, a run's last one for its score."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loragrid.models.passes import row_losses
from loragrid.models.passes.row_losses import RowLoss
from loragrid.records.record import ScoreRecord, read_record
from loragrid.scoring.heldout.kept_losses import KeptLosses, Measured, changed_base_losses
from loragrid.study.methods import METHODS
from tests.fixtures.train_toys import Toy, make_toy, rows_of

HELDOUT_ONLY = {"scoring": {"target": ["heldout_loss"], "retention": [], "qualitative": None}}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows of all measurements that are made in the test."""
    found: list[int] = []
    measure = row_losses.measure_passes

    def counted(model: Any, rows: Any) -> Any:
        found.append(len(rows))
        return measure(model, rows)

    measuring = ("models.passes.row_losses", "training.trainer_hooks", "scoring.heldout.losses")
    for place in measuring:
        monkeypatch.setattr(f"loragrid.{place}.measure_passes", counted)
    return found


def results(folder: Path) -> Path:
    return folder / "results" / "toy"


def score(toy: Toy, name: str, trained: Path | None, out: Path) -> ScoreRecord:
    from loragrid.scoring.subjects import Subject
    from score import score_subjects

    score_subjects(study=toy.study, subjects=[Subject(name, trained, toy.data, out)])
    return read_record(out / "score.json", ScoreRecord)


@pytest.fixture
def toy(toy_llama: Path, tmp_path: Path) -> Toy:
    return make_toy(tmp_path / "toy", toy_llama, **HELDOUT_ONLY)


def test_runs_and_scores_share_their_measurements(toy: Toy, tmp_path: Path, measured: list[int]) -> None:
    run, other = (results(tmp_path) / "train" / name for name in (toy.cell.run, "other"))
    record = toy.train(run)
    assert measured == [10] * 4  # evaluations at thirds, and the base's
    toy.train(other)
    assert measured == [10] * 7
    assert [row["loss"] for row in rows_of(run)] == [row["loss"] for row in rows_of(other)]

    base = score(toy, next(iter(toy.study.bases)), None, results(tmp_path) / "score" / "base")
    tuned = score(toy, toy.cell.run, run, results(tmp_path) / "score" / toy.cell.run)
    assert measured == [10] * 7  # neither was measured again
    assert base.tasks["heldout_loss"].metrics["loss"]["value"] == pytest.approx(record.first_heldout_loss, rel=1e-15)
    assert tuned.tasks["heldout_loss"].metrics["loss"]["value"] == pytest.approx(record.final_heldout_loss, rel=1e-15)


def test_jobs_that_begin_at_once_measure_the_base_once(
    toy: Toy, tmp_path: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one waits for the first, which keeps the losses meanwhile."""
    record = toy.train(results(tmp_path) / "train" / "first")
    (file,) = base_files(tmp_path)
    content = file.read_text()
    file.unlink()
    locked = KeptLosses.locked

    @contextmanager
    def late(kept: KeptLosses, **options: Any) -> Iterator[None]:
        file.write_text(content)
        with locked(kept, **options):
            yield

    monkeypatch.setattr(KeptLosses, "locked", late)
    assert toy.train(results(tmp_path) / "train" / "second").first_heldout_loss == record.first_heldout_loss
    assert measured == [10] * (4 + 3)


def test_losses_that_cannot_be_kept_end_no_job(tmp_path: Path) -> None:
    (tmp_path / "base_losses").touch()
    kept, measured = KeptLosses(tmp_path / "base_losses" / "a.json", "key"), []
    with kept.locked():
        measured.append(Measured([RowLoss(1.0, 2)], 1.0))
        kept.write(measured[0])
    assert measured and kept.read(rows=1) is None


def test_a_job_waits_while_another_one_measures_and_gives_up_on_a_stop(tmp_path: Path) -> None:
    kept, order = KeptLosses(tmp_path / "base_losses" / "a.json", "key"), []

    def second() -> None:
        with kept.locked():
            order.append("second")

    with kept.locked():
        with kept.locked(give_up=lambda: True):
            order.append("stopped")
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["stopped", "first", "second"]


def test_what_is_shared_is_what_a_score_job_measures_itself(toy: Toy, tmp_path: Path, measured: list[int]) -> None:
    run = results(tmp_path) / "train" / toy.cell.run
    toy.train(run)
    of_run = run / "heldout_losses.json"
    shared = {path: json.loads(path.read_text()) for path in (of_run, *base_files(tmp_path))}
    kept = of_run.read_text()
    for path in shared:
        path.unlink()
    before = len(measured)
    scored = results(tmp_path) / "score"
    score(toy, next(iter(toy.study.bases)), None, scored / "base")
    (base,) = base_files(tmp_path)
    again = json.loads(base.read_text())
    assert (again["key"], again["losses"]) == (shared[base]["key"], shared[base]["losses"])
    alone = score(toy, toy.cell.run, run, scored / "alone").tasks["heldout_loss"].metrics
    assert len(measured) == before + 2
    of_run.write_text(kept)
    assert score(toy, toy.cell.run, run, scored / "taken").tasks["heldout_loss"].metrics == alone
    assert len(measured) == before + 2


def base_files(folder: Path) -> list[Path]:
    return sorted((results(folder) / "base_losses").glob("*.json"))


def test_a_damaged_file_is_measured_again(toy: Toy, tmp_path: Path) -> None:
    first = toy.train(results(tmp_path) / "train" / "first")
    (file,) = base_files(tmp_path)
    before = json.loads(file.read_text())
    changed = [[before["losses"][0][0] / 2, before["losses"][0][1]], *before["losses"][1:]]
    fewer = before["losses"][1:]
    kept = KeptLosses(file, before["key"])
    assert (
        kept.read(rows=10) is not None
        and kept.read(rows=9) is None
        and KeptLosses(file, "another").read(rows=10) is None
    )
    assert changed_base_losses(results(tmp_path)) == []
    for damage in (
        "",
        "[]",
        '{"key": "another", "losses": []}',
        '{"key": "another", "losses": [[1, 1e999]]}',
        *(before | {"losses": found} for found in (fewer, changed)),
    ):
        file.write_text(damage if isinstance(damage, str) else json.dumps(damage))
        assert kept.read(rows=10) is None and changed_base_losses(results(tmp_path)) == [file], damage
    assert toy.train(results(tmp_path) / "train" / "second").first_heldout_loss == first.first_heldout_loss
    again = json.loads(file.read_text())
    assert (again["key"], again["losses"]) == (before["key"], before["losses"])


def test_other_data_are_measured_again(toy: Toy, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    toy.train(results(tmp_path) / "train" / "first")
    rows = pq.read_table(toy.data / "heldout.parquet")
    pq.write_table(rows.slice(1), toy.data / "heldout.parquet")
    card = json.loads((toy.data / "card.json").read_text())
    from loragrid.data.training_data import rows_sha256

    card["heldout_fingerprint"] = rows_sha256(rows.slice(1))
    card["split"]["heldout_rows"] -= 1
    (toy.data / "card.json").write_text(json.dumps(card))
    toy.train(results(tmp_path) / "train" / "second")
    assert len(base_files(tmp_path)) == 2


def test_nothing_is_written_beside_a_folder_of_the_user(toy: Toy, tmp_path: Path) -> None:
    toy.train(tmp_path / "mine" / "run")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["run"]


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.starts_as_base])
def test_methods_that_start_as_the_base_do(toy: Toy, toy_llama: Path, method: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from loragrid.training.backends.adapters import attach
    from loragrid.training.backends.recipe import make_recipe

    recipe = replace(make_recipe(toy.study, toy.cell, device="cpu"), method=method, learning_rate_ratio=None)
    ids = torch.arange(10, 40).view(1, -1)
    model = AutoModelForCausalLM.from_pretrained(toy_llama).eval()
    expected = model(input_ids=ids).logits
    assert torch.equal(attach(model, recipe, folder=toy_llama).eval()(input_ids=ids).logits, expected)
