"""Measuring a form: what it is asked, what it prints meanwhile, and why it cannot be measured."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loragrid.exporting import measuring
from loragrid.exporting.measuring import Form, Job, common_dtype, measure, request_of
from loragrid.exporting.questions import LEAST_QUESTIONS, questions_of
from loragrid.models.loading import load_tokenizer
from loragrid.runtime import progress_lines
from loragrid.scoring.heldout import losses
from tests.exporting.conftest import Finished


def test_few_prompts_are_followed_by_openings_of_held_out_rows(finished: Finished, tmp_path: Path) -> None:
    run = finished.run()
    found = questions_of(run, load_tokenizer(run.entry))
    asked = [question.text is not None for question in found]
    assert asked == [True] * sum(asked) + [False] * 9 and 0 < sum(asked) < LEAST_QUESTIONS  # of 9 held-out rows
    many = tmp_path / "many.jsonl"
    line = {"prompt": "Say it", "original": "Say", "reference": "it"}
    many.write_text("".join(json.dumps({"id": str(number)} | line) + "\n" for number in range(LEAST_QUESTIONS)))
    scoring = run.study.yaml["scoring"] | {"qualitative": str(many)}
    study = replace(run.study, yaml=run.study.yaml | {"scoring": scoring})
    enough = questions_of(replace(run, study=study), load_tokenizer(run.entry))
    assert len(enough) == 2 * LEAST_QUESTIONS and all(question.text for question in enough)


def job_of(finished: Finished, **options: Any) -> Job:
    return Job(heldout=finished.run().data / "heldout.parquet", questions=[], batch_size=4, threads=1, **options)


def test_a_form_says_how_far_its_measurement_is(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    def slowly(*of: Any) -> Iterator[Any]:
        time.sleep(0.1)
        yield from measure_passes(*of)

    measure_passes = losses.measure_passes
    monkeypatch.setattr(losses, "measure_passes", slowly)
    monkeypatch.setattr(progress_lines, "LINE_SECONDS", 0.001)
    run = finished.run("full")
    measure(request_of(Form(kind="whole", folder=run.trained, entry=run.entry), job_of(finished, label="[toy]")))
    said = capfd.readouterr().err
    assert (
        "[toy] measuring whole, loading: 0 of 1 models | " in said and "[toy] measuring whole: 0 of 9 rows | " in said
    )


def test_a_merged_model_is_measured_in_the_common_dtype_and_as_it_is_loaded(finished: Finished, tmp_path: Path) -> None:
    from loragrid.exporting.merging import write_merged

    run = finished.run("full")
    write_merged(run, tmp_path / "merged")
    form = Form(kind="merged", folder=tmp_path / "merged")
    own, common = (measure(request_of(one, job_of(finished))) for one in (form, replace(form, dtype="float32")))
    assert (own.arithmetic, own.own_loss, common.arithmetic) == ("float16 on cpu", None, "float32 on cpu")
    assert common.own_loss == own.loss != common.loss


def test_why_a_form_cannot_be_measured_is_written_for_the_stage(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, answer = tmp_path / "request.json", tmp_path / "answer.json"
    request.write_text(json.dumps(request_of(Form(kind="merged", folder=tmp_path), job_of(finished))))
    monkeypatch.setattr(sys, "argv", ["measuring", str(request), str(answer)])
    measuring.main()
    assert "config.json" in json.loads(answer.read_text())["failure"]


def test_forms_are_compared_in_float32_where_it_fits() -> None:
    assert common_dtype(135_000_000) == "float32" and common_dtype(10**15) is None
