"""The demo's base models: rebuilds from the same seeds are identical, and the shipped files match their records."""

import hashlib
import re
from pathlib import Path

import pytest

from loragrid.demo.convergence import MEASUREMENTS, has_converged
from loragrid.runtime.atomic_files import read_json
from tools.make_base_models import MODELS, RECIPES, make_base_models

MAX_BYTES = 15 * 1024**2


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.long
def test_a_shortened_rebuild_is_identical(tmp_path: Path) -> None:
    for name in ("first", "second"):
        make_base_models(keys=["llama-s", "gemma-s"], steps=2, out=tmp_path / name)
    first, second = contents(tmp_path / "first"), contents(tmp_path / "second")
    assert first.keys() == second.keys()
    assert {
        "llama-s/model.safetensors",
        "llama-s/chat_template.jinja",
        "gemma-s/tokenizer.json",
        "SHA256SUMS",
    } <= first.keys()
    timed = {"README.md", "llama-s/made.json", "gemma-s/made.json"}
    assert [path for path in first if path not in timed and first[path] != second[path]] == []
    assert read_json(tmp_path / "first" / "llama-s" / "made.json")["steps"] == 2
    assert "SHA256SUMS" not in first["SHA256SUMS"].decode()


def test_shipped_files_match_their_checksums() -> None:
    lines = [line.split("  ") for line in (MODELS / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    listed = {path: digest for digest, path in lines}
    assert {path.split("/")[0] for path in listed} == set(RECIPES)
    for path, digest in listed.items():
        assert hashlib.sha256((MODELS / path).read_bytes()).hexdigest() == digest, path
    shipped = {path for path in contents(MODELS) if "/" in path and not path.endswith("made.json")}
    assert shipped == set(listed)
    assert sum((MODELS / path).stat().st_size for path in listed) <= MAX_BYTES


@pytest.mark.parametrize("key", RECIPES)
def test_shipped_model_loads_and_ends_its_turn(key: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(MODELS / key, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(MODELS / key)
    assert model.dtype == torch.float32
    assert 5e5 < model.num_parameters() < 2e6
    prompt = [{"role": "user", "content": "Name the color of Rosethal."}]
    encoded = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**encoded, max_new_tokens=20, do_sample=False)[0, encoded["input_ids"].shape[1] :]
    assert answer[-1] == tokenizer.eos_token_id == model.generation_config.eos_token_id
    assert 1 < len(answer) < 20


def test_readme_names_every_model_and_its_figures() -> None:
    text = (MODELS / "README.md").read_text(encoding="utf-8")
    for key in RECIPES:
        made = read_json(MODELS / key / "made.json")
        row = next(line for line in text.splitlines() if line.startswith(f"| {key} "))
        assert f"{made['parameters']:,}" in row
        assert f"{made['tokens']:,}" in row
        last = made["curve"][-1]
        assert re.search(rf"^\| {key} \|.* {last['heldout_loss']:.3f} \| [\d.]+% \|$", text, re.MULTILINE)
        assert re.search(rf"^\| {key} \|.* {last['answer_loss']:.3f} \|$", text, re.MULTILINE)
    assert "(loss.svg)" in text and (MODELS / "loss.svg").stat().st_size < 20_000


@pytest.mark.parametrize("key", RECIPES)
def test_pretraining_of_the_shipped_model_has_converged(key: str) -> None:
    made = read_json(MODELS / key / "made.json")
    assert made["steps"] == RECIPES[key].steps == made["curve"][-1]["step"]
    assert len(made["curve"]) == MEASUREMENTS + 1
    assert has_converged(made["curve"], warmup_steps=made["warmup_steps"])
    # Half of the same curve has not.
    assert not has_converged(made["curve"][: MEASUREMENTS // 2], warmup_steps=made["warmup_steps"])


def test_the_larger_llama_is_no_worse_on_heldout_text() -> None:
    small, medium = (read_json(MODELS / key / "made.json") for key in ("llama-s", "llama-m"))
    assert medium["parameters"] > small["parameters"]
    assert medium["curve"][-1]["heldout_loss"] <= small["curve"][-1]["heldout_loss"]
