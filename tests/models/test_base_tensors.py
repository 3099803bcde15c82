"""A base whose weights do not fit its configuration is refused, before anything is trained on it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loragrid.errors import UserError
from loragrid.models.base_checks.tensors import check_headers, check_tensors
from loragrid.models.loading import load_base
from loragrid.models.shape import read_shape
from loragrid.study.sections import ModelEntry
from loragrid.workflow.jobs import Jobs
from tests.fixtures.studies import toy_study

QUERY = "model.layers.1.self_attn.q_proj.weight"
Weights = dict[str, torch.Tensor]


def broken(folder: Path, out: Path, change: Callable[[Weights], Any], **config: Any) -> Path:
    """A copy of a model folder with changed weights and configuration."""
    shutil.copytree(folder, out)
    weights = load_file(out / "model.safetensors")
    change(weights)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    file = out / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return out


FAULTS = {
    "missing": (lambda w: w.pop(QUERY), {}, rf"1 tensor is missing \({QUERY}\)"),
    "renamed": (
        lambda w: w.update({"model.extra.weight": w.pop(QUERY)}),
        {},
        r"1 tensor is missing .*; 1 tensor is not of this model",
    ),
    "cut": (
        lambda w: w.update({QUERY: w[QUERY][:-2].clone()}),
        {},
        rf"1 tensor is of another shape \({QUERY} \[30, 32\]",
    ),
    "more layers": (
        lambda w: None,
        {"num_hidden_layers": 3},
        r"9 tensors are missing \(model\.layers\.2|7 tensors are miss",
    ),
    "fewer layers": (lambda w: None, {"num_hidden_layers": 1}, r"9 tensors are not of this model \(model\.layers\.1"),
    "norm": (lambda w: w.pop("model.norm.weight"), {}, r"1 tensor is missing \(model\.norm\.weight\)"),
}
IN_HEADERS = ("missing", "cut", "more layers", "fewer layers")


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_do_not_fit_are_refused(fault: str, toy_llama: Path, tmp_path: Path) -> None:
    """By the files alone, when they are loaded, and, of linear maps, in a dry run."""
    change, config, message = FAULTS[fault]
    folder = broken(toy_llama, tmp_path / "broken", change, **config)
    message = rf"do not fit its config\.json: {message}.*Fix: copy or download"
    with pytest.raises(UserError, match=message):
        check_tensors(folder)
    with pytest.raises(UserError, match=message):
        load_base(ModelEntry(path=str(folder), precision="32bit", chat_template=None), device="cpu")
    shape = read_shape(json.loads((folder / "config.json").read_text()), "config.json")
    if fault in IN_HEADERS:
        with pytest.raises(UserError, match=message):
            check_headers(shape, folder)


@pytest.mark.parametrize("family", ["toy_llama", "toy_gemma"])
def test_whole_models_pass(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(family)
    check_tensors(folder)
    check_headers(read_shape(json.loads((folder / "config.json").read_text()), "config.json"), folder)


def test_the_check_reads_no_weights_but_finds_a_file_that_is_cut(toy_llama: Path, tmp_path: Path) -> None:
    """Only the header and the file's size: weights that are a hole in the file pass."""
    folder = shutil.copytree(toy_llama, tmp_path / "cut")
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: 8 + int.from_bytes(content[:8], "little")])
    os.truncate(file, len(content))
    check_tensors(folder)
    os.truncate(file, len(content) - 1)
    wanted = rf"not a safetensors file \(it ends after {len(content) - 1:,} of {len(content):,} bytes\)\. Fix: "
    with pytest.raises(UserError, match=wanted):
        check_tensors(folder)
    with pytest.raises(UserError, match=wanted):
        check_headers(read_shape(json.loads((folder / "config.json").read_text()), "config.json"), folder)


def test_a_quantization_that_transformers_does_not_know_is_refused(toy_llama: Path, tmp_path: Path) -> None:
    """transformers passes it over with a warning and loads the weights as they are."""
    folder = shutil.copytree(toy_llama, tmp_path / "quantized")
    config = json.loads((folder / "config.json").read_text())
    for method in ("gptq", "foo"):
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))
        if method == "gptq":
            check_tensors(folder)
    with pytest.raises(UserError, match=r"quant_method is not one that transformers knows \(foo\)\. Fix: "):
        check_tensors(folder)


def test_a_folder_in_the_place_of_weights_is_refused(toy_llama: Path, tmp_path: Path) -> None:
    """Also by the identity of the runs, which every call of Snakemake asks for first."""
    folder = shutil.copytree(toy_llama, tmp_path / "broken")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(UserError, match=r"model\.safetensors: not a safetensors file .*Fix: "):
        Jobs(toy_study({"toy": folder}), results="results/any", session_minutes=None)
