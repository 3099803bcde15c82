"""The dtype of the merged model: the first 16-bit one that matches the run, or the closest."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Failed
from loragrid.exporting import merged_dtype
from loragrid.exporting.merged_dtype import write_merged_form
from loragrid.exporting.merging import MergedFacts
from loragrid.exporting.parity import Parity
from tests.exporting.conftest import Finished

FOUND = Parity(
    form="merged", reference="the run", loss=1.0, reference_loss=1.0, rows=9, answers=40, same_answers=40,
    other_prompts=0, arithmetic="float32 on cpu",
)  # fmt: skip


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Merged models of a base in bfloat16 are a file that names their dtype; returns those that were written."""
    dtypes: list[str] = []

    def write(run: Any, folder: Path, dtype: str | None) -> MergedFacts:
        dtypes.append(dtype or "bfloat16")
        folder.mkdir()
        (folder / "dtype").write_text(dtypes[-1])
        return MergedFacts(dtypes[-1], "the base in bfloat16")

    monkeypatch.setattr(merged_dtype, "write_merged", write)
    return dtypes


@pytest.mark.parametrize(
    ("losses", "kept", "rejected"),
    [
        ({"bfloat16": 1.001}, "bfloat16", []),
        ({"bfloat16": 1.008, "float16": 1.0002}, "float16", [1.008]),
        ({"bfloat16": 1.008, "float16": 1.009}, "bfloat16", [1.009]),
        ({"bfloat16": 1.008, "float16": math.nan}, "bfloat16", [math.nan]),
    ],
)
def test_the_first_that_matches_the_run_is_kept_or_the_closest(
    losses: dict[str, float], kept: str, rejected: list[float],
    finished: Finished, written: list[str], tmp_path: Path,
) -> None:  # fmt: skip
    def compare(place: Path, dtype: str) -> Parity:
        assert (place / "dtype").read_text() == dtype
        return replace(FOUND, loss=losses[dtype])

    found = write_merged_form(finished.run(), tmp_path / "merged", dtype=None, compare=compare)
    assert written == list(losses)
    assert found.facts.dtype == (tmp_path / "merged" / "dtype").read_text() == kept
    assert str([one.loss for one in found.rejected]) == str(rejected)
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_dtype_that_overflows_when_it_is_used_is_no_match(
    finished: Finished, written: list[str], tmp_path: Path
) -> None:
    def compare(place: Path, dtype: str) -> Parity:
        own = math.inf if dtype == "float16" else 1.01
        return replace(FOUND, loss=1.008 if dtype == "bfloat16" else 1.0, own_loss=own)

    found = write_merged_form(finished.run(), tmp_path / "merged", dtype=None, compare=compare)
    assert found.facts.dtype == "bfloat16" and not found.parity.holds
    assert "no number when it computes in the dtype of its weights" in found.rejected[0].text


def test_a_dtype_that_is_asked_for_is_the_only_one(finished: Finished, written: list[str], tmp_path: Path) -> None:
    found = write_merged_form(
        finished.run(), tmp_path / "merged", dtype="float32", compare=lambda *_: replace(FOUND, loss=2.0)
    )
    assert written == ["float32"] and not found.rejected and not found.parity.holds


def test_a_family_that_overflows_and_a_weight_beyond_the_range_leave_the_first(
    finished: Finished, written: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = merged_dtype.write_merged

    def too_large(run: Any, folder: Path, dtype: str | None) -> MergedFacts:
        if dtype == "float16":
            raise Failed("a weight is not finite in float16")
        return write(run, folder, dtype)

    def compare(place: Path, dtype: str) -> Parity:
        return replace(FOUND, loss=1.008)

    monkeypatch.setattr(merged_dtype, "write_merged", too_large)
    found = write_merged_form(finished.run(), tmp_path / "merged", dtype=None, compare=compare)
    assert found.facts.dtype == "bfloat16" and not found.rejected
    monkeypatch.setattr(merged_dtype, "check_model_folder", lambda _: "gemma3_text")
    written.clear()
    write_merged_form(finished.run(), tmp_path / "other", dtype=None, compare=compare)
    assert written == ["bfloat16"]


def test_a_second_form_that_cannot_be_measured_leaves_no_files(
    finished: Finished, written: list[str], tmp_path: Path
) -> None:
    def compare(place: Path, dtype: str) -> Parity:
        if dtype == "float16":
            raise Failed("merged: cannot be measured")
        return replace(FOUND, loss=1.008)

    found = write_merged_form(finished.run(), tmp_path / "merged", dtype=None, compare=compare)
    assert written == ["bfloat16", "float16"] and found.facts.dtype == "bfloat16"
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
