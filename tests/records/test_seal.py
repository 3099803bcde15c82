"""Digests of results: a file that has changed since it was written is found where it is read, and by `make verify`."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from loragrid.comparing.diagnosing.run_evidence import read_loss_path
from loragrid.comparing.diagnosing.study_checks import chance_level, leaks
from loragrid.errors import UserError
from loragrid.records.outcomes import collect, data_cards
from loragrid.records.record import RunRecord, read_record, write_sealed_record
from loragrid.records.seal import SEAL, changed_files, check_sealed, digests_of, sealed_files, write_seal
from loragrid.reporting.side_by_side import read_answers
from loragrid.study.study_file import Study
from tests.fixtures import synthetic
from tools.verify_results import verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed folder as a run leaves it."""
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    run = tmp_path / "run"
    files = [run / "losses.csv", run / "adapter" / "adapter_config.json"]
    for file in files:
        file.write_text(file.name)
    write_seal(run, digests_of(run, files), record="record.json", text="{}")
    (run / "record.json").write_text("{}")
    return run


def test_a_seal_holds_the_files_and_the_record(folder: Path) -> None:
    assert sorted(sealed_files(folder)) == ["adapter/adapter_config.json", "losses.csv", "record.json"]
    assert changed_files(folder) == []
    check_sealed(folder, folder / "adapter", folder / "record.json", folder / "adapter" / "adapter_config.json")


@pytest.mark.parametrize("name", ["losses.csv", "adapter/adapter_config.json", "record.json"])
def test_a_changed_file_is_refused_and_the_others_are_not(folder: Path, name: str) -> None:
    (folder / name).write_text("changed")
    assert changed_files(folder) == [name]
    for path in (folder / name, folder):
        with pytest.raises(
            UserError, match=rf"{name}: changed since it was written .*Fix: restore it, or delete"
        ) as error:
            check_sealed(path)
        assert "\n" not in str(error.value)
    other = "losses.csv" if name != "losses.csv" else "record.json"
    check_sealed(folder / other)


def test_what_is_new_is_left_to_its_reader(folder: Path) -> None:
    """A card that is written beside the weights later is no change of them."""
    (folder / "adapter" / "README.md").write_text("a card")
    check_sealed(folder, folder / "adapter" / "README.md")
    assert changed_files(folder) == []


@pytest.mark.parametrize("gone", ["losses.csv", "adapter"])
def test_what_was_removed_is_noticed_where_it_would_be_read(folder: Path, gone: str) -> None:
    if gone == "adapter":
        shutil.rmtree(folder / gone)
    else:
        (folder / gone).unlink()
    for path in (folder / gone, folder):
        with pytest.raises(UserError, match=rf"{gone}.*: removed since it was written .*Fix: restore it, or delete"):
            check_sealed(path)
    assert len(changed_files(folder)) == 1
    check_sealed(folder / "record.json")


@pytest.mark.parametrize("file", ["losses.csv", "answers.jsonl", "lm_eval/task.json", "train.parquet"])
def test_a_reader_of_what_may_be_absent_notices_what_changed_or_was_removed(tmp_path: Path, file: str) -> None:
    """A run without losses, answers or choices is read as one that had none."""
    results = tmp_path / "results"
    folder = results / "data" / "rows"
    path = folder / file
    read = {
        "losses.csv": lambda: read_loss_path(path),
        "answers.jsonl": lambda: read_answers(path) or None,
        "lm_eval/task.json": lambda: chance_level(path, "task"),
        "train.parquet": lambda: leaks(results, ["rows"]) or None,
    }[file]
    assert read() is None
    path.parent.mkdir(parents=True)
    path.write_text("x")
    write_seal(folder, digests_of(folder, [path]), record="record.json", text="{}")
    path.write_text("y")
    with pytest.raises(UserError, match="changed since it was written"):
        read()
    path.unlink()
    with pytest.raises(UserError, match="removed since it was written"):
        read()


def test_a_folder_without_a_seal_is_read_and_a_damaged_seal_is_not(folder: Path) -> None:
    for damage in ("[]", "", "[" * 100_000, '{"schema": 1, "files": [1]}'):
        (folder / SEAL).write_text(damage)
        with pytest.raises(UserError, match=r"no digests of files\. Fix: restore it, or delete"):
            check_sealed(folder)
    (folder / SEAL).unlink()
    (folder / "losses.csv").write_text("changed")
    check_sealed(folder)
    assert sealed_files(folder) is None


@pytest.fixture
def sealed_study(tmp_path: Path) -> tuple[Study, Path]:
    """A made-up study of which every folder is sealed, as the stages leave it."""
    study = synthetic.make_study(tmp_path, grid={"axes": {"learning_rate": None, "rank": None, "batch": None}})
    results = tmp_path / "results" / "made"
    synthetic.make_results(study, results, seed=5)
    run = study.cells[0].run
    for name in (
        "results/made/compare/compare.json",
        "reports/made/report.html",
        f"results/made/export/{run}/export.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (results / "export" / run / "model.safetensors").write_text("weights")
    (tmp_path / "reports/made/figures").mkdir()
    (tmp_path / "reports/made/figures/scores.svg").write_text("<svg/>")
    records = ("data/*/card.json", "train/*/record.json", "score/*/score.json", "compare/compare.json")
    records += ("export/*/export.json",)
    for pattern in (*(f"results/made/{record}" for record in records), "reports/made/report.html"):
        for record in tmp_path.glob(pattern):
            files = [file for file in record.parent.rglob("*") if file.is_file() and file != record]
            text = record.read_text(encoding="utf-8")
            write_seal(record.parent, digests_of(record.parent, files), record=record.name, text=text)
    return study, results


def test_a_record_that_was_edited_is_not_read(sealed_study: tuple[Study, Path]) -> None:
    """In the table its run stays, with the reason."""
    study, results = sealed_study
    run = study.cells[0].run
    path = results / "train" / run / "record.json"
    record = read_record(path, RunRecord)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"final_heldout_loss": 0.1}))
    with pytest.raises(UserError, match=r"record\.json: changed since"):
        read_record(path, RunRecord)
    (outcome,) = [found for found in collect(study, results) if found.subject == run]
    assert outcome.status == "unreadable" and "changed since it was written" in outcome.reason
    write_sealed_record(path, record, digests_of(path.parent, [path.parent / "losses.csv"]))
    assert read_record(path, RunRecord) == record


def test_a_removed_seal_is_noticed_where_its_files_are_read(sealed_study: tuple[Study, Path]) -> None:
    """Not only by `make verify`: without the seal, whatever was changed would be read as it is."""
    study, results = sealed_study
    folder = results / "train" / study.cells[0].run
    record = read_record(folder / "record.json", RunRecord)
    write_sealed_record(folder / "record.json", record, digests_of(folder, [folder / "losses.csv"]))
    (folder / SEAL).unlink()
    for path in (folder, folder / "losses.csv", folder / "record.json"):
        with pytest.raises(UserError, match=rf"{SEAL}: removed since it was written.*Fix: restore it, or delete"):
            check_sealed(path)
    assert f"{folder / SEAL}: gone" in verify(study, results)


def test_a_data_card_that_was_edited_is_not_read(sealed_study: tuple[Study, Path]) -> None:
    study, results = sealed_study
    card = results / "data" / next(iter(study.data_sets)) / "card.json"
    card.write_text(card.read_text().replace("{", "{ ", 1))
    with pytest.raises(UserError, match=r"card\.json: changed since"):
        data_cards(study, results)


def test_results_of_another_run_are_not_read(sealed_study: tuple[Study, Path]) -> None:
    """A folder that was copied with its digests has nothing that changed."""
    study, results = sealed_study
    taken, given = (cell.run for cell in study.cells[:2])
    for stage in ("train", "score"):
        shutil.rmtree(results / stage / taken)
        shutil.copytree(results / stage / given, results / stage / taken)
        (outcome,) = [found for found in collect(study, results) if found.subject == taken]
        assert outcome.status == "unreadable"
        assert f"{taken}: the results of {given}, not its own. Fix: delete the folder" in outcome.reason
    lines = [line for line in verify(study, results) if "not its own" in line]
    assert lines == [f"{results / stage / taken}: the results of {given}, not its own" for stage in ("train", "score")]


def test_verify_names_digests_without_the_record(sealed_study: tuple[Study, Path]) -> None:
    study, results = sealed_study
    seal = next(results.glob(f"score/*/{SEAL}"))
    seal.write_text('{"schema": 1, "files": {}}')
    assert f"{seal}: changed; it has no digest of score.json" in verify(study, results)


def _edit(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b" ")


CHANGES: dict[str, Any] = {
    "nothing": (lambda results: None, None),
    "losses": (lambda results: _edit(next(results.glob("train/*/losses.csv"))), r"losses\.csv: changed"),
    "items": (lambda results: _edit(next(results.glob("score/*/items.parquet"))), r"items\.parquet: changed"),
    "items gone": (lambda results: next(results.glob("score/*/items.parquet")).unlink(), r"items\.parquet: gone"),
    "score gone": (lambda results: next(results.glob("score/*/score.json")).unlink(), r"its score\.json is gone"),
    "seal gone": (lambda results: next(results.glob(f"score/*/{SEAL}")).unlink(), r"no digests; it was made before"),
    "run gone": (lambda results: shutil.rmtree(next(results.glob("train/*"))), r"its record\.json is gone"),
    "comparison": (lambda results: _edit(results / "compare" / "compare.json"), r"compare\.json: changed"),
    "page": (lambda results: _edit(results.parents[1] / "reports/made/report.html"), r"report\.html: changed"),
    "page gone": (lambda results: shutil.rmtree(results.parents[1] / "reports"), r"its report\.html is gone"),
    "figure": (lambda results: _edit(next(results.parents[1].glob("reports/*/*/*.svg"))), r"scores\.svg: changed"),
    "export": (lambda results: _edit(next(results.glob("export/*/*.safetensors"))), r"model\.safetensors: changed"),
    "export gone": (lambda results: next(results.glob("export/*/*.safetensors")).unlink(), r"safetensors: gone"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_verify_names_what_is_not_as_it_was(sealed_study: tuple[Study, Path], change: str) -> None:
    study, results = sealed_study
    make, message = CHANGES[change]
    make(results)
    found = [line for line in verify(study, results) if "not the base" not in line]
    if message is None:
        assert found == []
    else:
        (line,) = found
        assert re.search(message, line), line


def test_verify_compares_the_base(sealed_study: tuple[Study, Path]) -> None:
    """The synthetic records name no weights that a folder could hold."""
    study, results = sealed_study
    assert any("not the base that" in line for line in verify(study, results))
