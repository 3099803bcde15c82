"""The app's catalogue: the best run, complete adapters only, adapters from elsewhere on the right base."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

from loragrid.app.answering import Answerer, Sampling
from loragrid.app.catalogue import best_run, from_json, to_json
from loragrid.app.subjects import run_label, subject_of_adapter
from loragrid.errors import UserError
from loragrid.study.completion import complete
from loragrid.study.study_file import Study
from tests.fixtures.app_toys import (
    finished_study,
    finished_winner,
    toy_catalogue,
    trade_off,
    write_adapter,
    write_run_record,
)
from tests.fixtures.score_toys import write_model


@pytest.fixture
def study(tmp_path: Path, toy_llama: Path) -> Study:
    return finished_study(tmp_path, toy=toy_llama)


def compared(study: Study, *rows: dict) -> Path:
    results = study.path.parent / "results"
    (results / "compare" / "compare.json").write_text(json.dumps({"trade_offs": list(rows)}))
    return results


def test_starts_with_the_best_run_and_lists_base_and_runs(study: Study) -> None:
    catalogue = toy_catalogue(study)
    first, second = [cell.run for cell in study.cells]
    assert catalogue.start == second
    assert [s.name for s in catalogue.subjects[1:]] == [first, second]
    assert catalogue.base_of(catalogue.subject(second)).adapter is None
    assert catalogue.prompts == (("p1: A rephrased prompt", "A rephrased prompt"),)
    assert [s.label for s in catalogue.subjects] == [
        "toy, not fine-tuned",
        "toy, base case",
        "toy, learning rate 0.02",
    ]


def test_best_run_has_the_largest_gain_that_may_be_shipped(study: Study) -> None:
    tuned = list(toy_catalogue(study).subjects[1:])
    first, second = [subject.name for subject in tuned]
    results = compared(study, trade_off(first, gain=0.3), trade_off(second, gain=0.9, ship="don't ship"))
    assert best_run(results, tuned, study="t4") == first
    results = compared(
        study, trade_off(first, gain=-0.3, ship="can't tell", verdict="worse"), trade_off("gone", gain=1.0)
    )
    assert best_run(results, tuned, study="t4") == first
    results = compared(study, trade_off(first, gain=0.3), trade_off(second, gain=0.4, ship="can't tell"))
    assert best_run(results, tuned, study="t4") == second
    results = compared(study, trade_off(first, gain=0.3), trade_off(second, gain=0.4, verdict="can't tell"))
    assert best_run(results, tuned, study="t4") == first
    (results / "compare" / "compare.json").unlink()
    assert best_run(results, tuned, study="t4") == first


def test_the_winner_of_the_search_is_offered_and_may_be_the_best(study: Study, toy_llama: Path) -> None:
    searched, winner = finished_winner(study, toy_llama)
    assert winner not in [s.name for s in toy_catalogue(study).subjects], "the search is not part of this study"
    catalogue = toy_catalogue(searched)
    assert catalogue.subjects[-1].name == winner
    assert catalogue.subjects[-1].label == "toy, search winner"
    first = catalogue.subjects[1].name
    compared(study, trade_off(first, gain=0.3), trade_off(winner, gain=0.4))
    assert toy_catalogue(searched).start == winner == toy_catalogue(searched, run=winner).start
    assert toy_catalogue(searched, run=first).start == first


def test_without_a_finished_run_the_error_names_the_fix(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="snakemake --cores 1 --config study=t4` first"):
        best_run(tmp_path / "none", [], study="t4")


def test_a_changed_adapter_is_refused(study: Study) -> None:
    run = study.cells[0].run
    weights = study.path.parent / "results" / "train" / run / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="changed since their record"):
        toy_catalogue(study)


def test_run_option(study: Study) -> None:
    run = study.cells[0].run
    assert toy_catalogue(study, run=run).start == run
    with pytest.raises(UserError, match=r"no run has this id \(nonsense\)"):
        toy_catalogue(study, run="nonsense")


def test_adapter_from_a_folder_finds_its_base(study: Study, tmp_path: Path, toy_llama: Path) -> None:
    folder = write_adapter(tmp_path / "mine", toy_llama, seed=9)
    catalogue = toy_catalogue(study, adapter=str(folder))
    start = catalogue.subject(catalogue.start)
    assert (start.model, start.adapter, start.label) == ("toy", str(folder), "toy, adapter mine")


def test_the_merged_model_of_an_export_answers_as_itself(study: Study, tmp_path: Path, toy_llama: Path) -> None:
    folder = write_model(toy_llama, tmp_path / "export" / "RUN" / "merged", seed=9)
    with pytest.raises(UserError, match=r"a whole model, whose base is not known .* Fix: name the base with --model"):
        toy_catalogue(study, adapter=str(folder))
    (folder.parent / "export.json").write_text('{"model": "toy"}')
    catalogue = toy_catalogue(study, adapter=str(folder))
    start = catalogue.subject(catalogue.start)
    assert (start.adapter, start.label, catalogue.base_of(start).model) == (None, "toy, merged RUN", "toy")
    sampling, answerer = Sampling(seed=0, temperature=0.0, max_new_tokens=8), Answerer(catalogue)
    merged, base = (list(answerer.stream(one, "Hi", sampling))[-1] for one in (start, catalogue.base_of(start)))
    assert merged.text != base.text and catalogue.models[start.model].path == str(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_model_name_or_path": "someone/else"}, "no model like its base .someone/else..*--model, one of toy"),
        ({"base_model_name_or_path": None}, "no model like its base .none named."),
        ({"peft_type": "PROMPT_TUNING"}, r"not a kind of adapter that is supported \(PROMPT_TUNING\)"),
        (None, "no adapter_model.safetensors.*pickled weights are never loaded"),
    ],
)
def test_adapters_that_cannot_be_used(
    study: Study, tmp_path: Path, toy_llama: Path, change: dict | None, message: str
) -> None:
    folder = write_adapter(tmp_path / "mine", toy_llama, seed=9)
    if change is None:
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    else:
        config = folder / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match=message):
        subject_of_adapter(study, str(folder), None)


def test_an_adapter_none_of_whose_tensors_fits_is_refused(study: Study, tmp_path: Path, toy_llama: Path) -> None:
    """It would show the base as tuned."""
    from safetensors.torch import load_file, save_file

    folder = write_adapter(tmp_path / "mine", toy_llama, seed=9)
    file, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    renamed = {name.replace(".layers.", ".blocks."): weight.clone() for name, weight in load_file(file).items()}
    save_file(renamed, file)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"target_modules": "all-linear"}))
    with pytest.raises(UserError, match=r"adapter .*/mine: its base has no layer model\.blocks\.0"):
        subject_of_adapter(study, str(folder), None)


def test_model_must_be_of_the_study(study: Study, tmp_path: Path, toy_llama: Path) -> None:
    folder = write_adapter(tmp_path / "mine", toy_llama, seed=9)
    with pytest.raises(UserError, match=r"--model: not a model of the study \(other\). Fix: give one of toy"):
        subject_of_adapter(study, str(folder), "other")


def test_a_missing_hub_adapter_gives_one_line(study: Study) -> None:
    with pytest.raises(UserError, match="--adapter: no/such at revision 1234 cannot be downloaded from the hub"):
        subject_of_adapter(study, "no/such@1234", None)


def test_json_keeps_all_and_finds_paths_beside_the_file(study: Study, tmp_path: Path) -> None:
    catalogue = toy_catalogue(study)
    path = tmp_path / "elsewhere" / "catalogue.json"
    path.parent.mkdir()
    path.write_text(to_json(catalogue))
    assert from_json(path) == catalogue
    value = json.loads(path.read_text())
    value["subjects"][1]["adapter"], value["report"] = "a/b", "r.html"
    path.write_text(json.dumps(value))
    assert from_json(path).subjects[1].adapter == str(path.parent / "a/b")
    assert from_json(path).report == str(path.parent / "r.html")


def with_more(study: Study, **sections: object) -> Study:
    """The study with whole sections changed, over the same results."""
    return replace(study, yaml=complete(copy.deepcopy(study.yaml) | sections))


def test_a_run_is_named_by_what_departs(study: Study) -> None:
    axes = {
        "target_modules": ["all-linear", ["q_proj", "v_proj"]],
        "method": ["lora", "dora"],
        "batch": [[2, 4], [4, 8]],
    }
    grid = {"axes": axes, "tied": [{"rank": 64, "learning_rate": 1e-3}], "cells": {"big": {"rank": 128, "alpha": 64}}}
    labels = [run_label(cell) for cell in with_more(study, grid=grid).cells]
    assert labels[0] == "toy, base case"
    for label in (
        "toy, target modules q_proj, v_proj",
        "toy, dora",
        "toy, batch 4×8",
        "toy, rank 64, learning rate 0.001",
        "toy, big",
    ):
        assert label in labels, labels


def test_a_whole_model_and_an_adopted_adapter_answer_and_a_bad_one_is_left_out(
    study: Study, tmp_path: Path, toy_llama: Path, capsys: pytest.CaptureFixture
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for seed, folder in enumerate((good, bad), start=20):
        write_adapter(folder, toy_llama, seed)
    config = json.loads((bad / "adapter_config.json").read_text())
    (bad / "adapter_config.json").write_text(json.dumps(config | {"modules_to_save": ["embed_tokens"]}))
    adopt = {key: {"path": str(folder), "model": "toy"} for key, folder in (("good", good), ("bad", bad))}
    full = with_more(study, grid={"axes": {"method": ["lora", "full"]}}, adopt=adopt)
    cell = full.cells[1]
    folder = tmp_path / "results" / "train" / cell.run
    write_model(toy_llama, folder / "model", seed=3)
    write_run_record(folder, cell)
    catalogue = toy_catalogue(full)
    whole, adopted = catalogue.subject(cell.run), catalogue.subjects[-1]
    assert (whole.label, whole.adapter, whole.model, whole.tuned) == ("toy, full", None, cell.run, True)
    assert catalogue.models[cell.run].folder == folder / "model"
    assert (adopted.label, adopted.adapter) == ("toy, adopted good", str(good))
    assert catalogue.base_of(whole) == catalogue.base_of(adopted) == catalogue.subjects[0]
    assert "left out: adopt.bad: an adapter with new vocabulary" in capsys.readouterr().err
    answerer = Answerer(catalogue)
    texts = {s.name: list(answerer.stream(s, "Hello", Sampling(1, 0.0, 40)))[-1].text for s in catalogue.subjects}
    assert len(set(texts.values())) == len(catalogue.subjects)
    assert (
        list(answerer.stream(catalogue.subjects[0], "Hello", Sampling(1, 0.0, 40)))[-1].text
        == texts[catalogue.subjects[0].name]
    )


def test_bases_in_two_precisions_stay_apart(study: Study) -> None:
    catalogue = toy_catalogue(with_more(study, grid={"axes": {"precision": ["32bit", "16bit"]}}))
    assert [s.label for s in catalogue.subjects if not s.tuned] == [
        "toy-32bit, not fine-tuned",
        "toy-16bit, not fine-tuned",
    ]
    assert {key: entry.precision for key, entry in catalogue.models.items()} == {
        "toy-32bit": "32bit",
        "toy-16bit": "16bit",
    }
