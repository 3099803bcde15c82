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
from loragrid.models.base_checks.tensors import check_dtypes, check_headers, check_tensors
from loragrid.models.base_checks.values import check_finite, check_values
from loragrid.models.loading import load_base
from loragrid.models.model_files import check_model_folder
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


TIED = {"toy_llama": {}, "toy_gemma": {"lm_head.weight": "model.embed_tokens.weight"}}


@pytest.mark.parametrize("family", TIED)
def test_whole_models_pass_and_tied_weights_are_named(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(family)
    assert check_tensors(folder) == TIED[family]
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


def test_weights_of_integers_are_refused_in_a_dry_run(toy_llama: Path, tmp_path: Path) -> None:
    """transformers casts them to floats without their scales. A folder that says how it is quantized is read by that."""
    folder = broken(toy_llama, tmp_path / "int8", lambda w: w.update({QUERY: w[QUERY].to(torch.int8)}))
    message = (
        rf"{QUERY} does not hold floating-point numbers \(I8\), and config\.json has no quantization_config\. Fix: "
    )
    with pytest.raises(UserError, match=message):
        Jobs(toy_study({"toy": folder}), results="results/any", session_minutes=None)
    with pytest.raises(UserError, match=message):
        check_tensors(folder)
    said = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    quantized = broken(folder, tmp_path / "quantized", lambda w: None, **said)
    Jobs(toy_study({"toy": quantized}), results="results/any", session_minutes=None)
    assert check_tensors(quantized) == {}


def test_masks_of_integers_are_no_weights(toy_llama: Path, tmp_path: Path) -> None:
    folder = broken(
        toy_llama, tmp_path / "mask", lambda w: w.update({"attn.bias": torch.ones(4, 4, dtype=torch.uint8)})
    )
    check_dtypes(folder)


VALUES = {
    "NaN": (lambda w: w[QUERY][3].fill_(float("nan")), f"{QUERY} holds values that are not finite"),
    "infinity": (
        lambda w: w["model.norm.weight"][:1].fill_(float("-inf")),
        "model.norm.weight holds values that are not",
    ),
    "zeros": (lambda w: w[QUERY].zero_(), f"{QUERY} holds nothing but zeros"),
}


@pytest.mark.parametrize("fault", VALUES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e5m2])
def test_weights_that_no_network_can_have_are_refused(
    fault: str, dtype: torch.dtype, toy_llama: Path, tmp_path: Path
) -> None:
    change, message = VALUES[fault]

    def spoil(weights: Weights) -> None:
        change(weights)
        weights.update({name: values.to(dtype) for name, values in weights.items()})

    folder = broken(toy_llama, tmp_path / "spoilt", spoil)
    with pytest.raises(UserError, match=rf"model\.safetensors: {message}.* Fix: download or copy it again"):
        check_values(folder, tied={})


def test_norms_and_the_start_of_an_adapter_may_be_zero(toy_llama: Path, tmp_path: Path) -> None:
    """Gemma's norms and most biases begin there, as does one of the two matrices of LoRA."""
    change = VALUES["zeros"][0]
    check_values(broken(toy_llama, tmp_path / "norm", lambda w: w["model.norm.weight"].zero_()), tied={})
    check_finite(broken(toy_llama, tmp_path / "zeros", change) / "model.safetensors")
    spoilt = broken(toy_llama, tmp_path / "nan", VALUES["NaN"][0]) / "model.safetensors"
    with pytest.raises(UserError, match=r"not finite \(NaN or infinity\)\. Fix: copy the adapter again"):
        check_finite(spoilt)


def test_a_base_is_read_once_while_it_stays_as_it_is(
    toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = broken(toy_llama, tmp_path / "base", lambda w: None)
    os.utime(folder / "model.safetensors", (0, 0))
    check_values(folder, tied={})
    with monkeypatch.context() as changed:
        changed.setattr("loragrid.models.base_checks.values._problem", lambda file: "read again")
        check_values(folder, tied={})
        (folder / "model.safetensors").touch()
        with pytest.raises(UserError, match="read again"):
            check_values(folder, tied={})


@pytest.mark.parametrize("family", ["toy_llama", "toy_gemma"])
def test_an_output_head_that_contradicts_the_configuration_is_refused(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With both in the files transformers would use both, with a warning; vLLM would use the embedding alone."""
    model, embedding = request.getfixturevalue(family), "model.embed_tokens.weight"

    def other_head(weights: Weights) -> None:
        weights["lm_head.weight"] = weights[embedding].flip(0).contiguous()

    folder = broken(model, tmp_path / "other", other_head, tie_word_embeddings=True)
    with pytest.raises(
        UserError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight, but .*Fix: set tie_"
    ):
        check_values(folder, tied=check_tensors(folder))
    same = broken(folder, tmp_path / "same", lambda w: w.update({"lm_head.weight": w[embedding].clone()}))
    check_values(same, tied=check_tensors(same))
    free = broken(folder, tmp_path / "free", lambda w: None, tie_word_embeddings=False)
    check_values(free, tied=check_tensors(free))
    headless = broken(folder, tmp_path / "headless", lambda w: w.pop("lm_head.weight"), tie_word_embeddings=False)
    with pytest.raises(
        UserError, match=r"1 tensor is missing \(lm_head\.weight\)\. Fix: .* or set tie_word_embeddings to true"
    ):
        check_tensors(headless)
    with pytest.raises(
        UserError, match=r"1 tensor is missing \(lm_head\.weight\)\. Fix: .* or set tie_word_embeddings to true"
    ):
        Jobs(toy_study({"toy": headless}), results="results/any", session_minutes=None)


def sharded(folder: Path, out: Path, *, listed: int = 2) -> Path:
    """A copy of a model folder with its weights in two files, of which the index names the first or both."""
    shutil.copytree(folder, out)
    weights = load_file(out / "model.safetensors")
    (out / "model.safetensors").unlink()
    names, half, places = sorted(weights), len(weights) // 2, {}
    for number, part in enumerate((names[:half], names[half:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, out / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part if number <= listed else (), file)
    (out / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return out


def test_weights_of_two_files_pass_beside_the_same_weights_under_other_names(toy_llama: Path, tmp_path: Path) -> None:
    folder = sharded(toy_llama, tmp_path / "base")
    save_file({"layers.0.attention.wq.weight": torch.ones(2, 2)}, folder / "consolidated.safetensors")
    check_model_folder(folder)
    assert check_tensors(folder) == {}
    check_values(folder, tied={})


INDEXES = {
    "half of it": (lambda index: None, "tensors are missing"),
    "none": (lambda index: index.unlink(), "neither model.safetensors nor"),
    "a list": (lambda index: index.write_text("[]"), "no map of tensors"),
    "no map": (lambda index: index.write_text('{"weight_map": {"a": 1}}'), "no map of tensors"),
    "lost file": (lambda index: (index.parent / "model-00001-of-00002.safetensors").unlink(), "1 of the 1 files"),
}


@pytest.mark.parametrize("mistake", INDEXES)
def test_an_index_that_does_not_name_all_weights_is_refused(toy_llama: Path, tmp_path: Path, mistake: str) -> None:
    change, message = INDEXES[mistake]
    folder = sharded(toy_llama, tmp_path / "base", listed=1)
    change(folder / "model.safetensors.index.json")
    with pytest.raises(UserError, match=rf"{message}.*Fix: "):
        check_headers(read_shape(json.loads((folder / "config.json").read_text()), "config.json"), folder)


def test_an_adapter_beside_the_model_is_refused(toy_llama: Path, tmp_path: Path) -> None:
    folder = broken(toy_llama, tmp_path / "base", lambda weights: None)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"an adapter is in the model's folder.*Fix: move"):
        check_model_folder(folder)


def test_a_model_that_is_not_causal_and_a_number_in_words_are_named(toy_llama: Path, tmp_path: Path) -> None:
    for key, value, message in (
        ("model_type", "t5", r"not a causal language model \(t5\)"),
        ("num_hidden_layers", "2", "'2'"),
    ):
        folder = broken(toy_llama, tmp_path / key, lambda weights: None, **{key: value})
        with pytest.raises(UserError, match=rf"{message}.*Fix: "):
            check_tensors(folder)
