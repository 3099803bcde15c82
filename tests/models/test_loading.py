"""Hub models read from a download cache, and the dtype that a model computes in."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import huggingface_hub
import pytest
import torch

from loragrid.errors import UserError
from loragrid.models.loading import half_dtype, load_base, load_tokenizer, precision_notes
from loragrid.models.model_files import base_facts, check_model_folder, prepared_entry, resolve_folder
from loragrid.study.sections import ModelEntry

HUB = ModelEntry(hub="unsloth/Toy-1B", revision="main", precision="32bit", chat_template=None)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_llama: Path) -> Path:
    """A cache with two commits of one model; `main` points to the second."""
    folder = tmp_path / "models--unsloth--Toy-1B"
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(toy_llama, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("b" * 40)
    download = huggingface_hub.snapshot_download

    def cached(hub: str, **options: Any) -> str:
        return download(hub, cache_dir=tmp_path, local_files_only=True, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    return folder


def test_a_branch_resolves_to_its_commit(hub_cache: Path) -> None:
    assert resolve_folder(HUB) == (hub_cache / "snapshots" / ("b" * 40), "b" * 40)
    facts = base_facts(HUB)
    assert (facts.source, facts.commit) == ("unsloth/Toy-1B", "b" * 40)
    assert load_base(HUB, device="cpu").dtype == torch.float32 and load_tokenizer(HUB).chat_template


def test_later_stages_use_the_commit_of_the_data_card(hub_cache: Path, tmp_path: Path, toy_llama: Path) -> None:
    """The branch has moved since the data were prepared."""
    (tmp_path / "card.json").write_text(json.dumps({"model_commit": "a" * 40}))
    entry = prepared_entry(HUB, tmp_path)
    assert resolve_folder(entry) == (hub_cache / "snapshots" / ("a" * 40), "a" * 40)
    local = ModelEntry(path=str(toy_llama), precision="32bit", chat_template=None)
    assert prepared_entry(local, tmp_path / "nowhere") == local


@pytest.mark.parametrize(
    ("hub", "error"),
    [
        ("a b/c", None),  # refused by huggingface_hub itself
        ("nobody/nothing", None),  # not in the cache
        ("unsloth/Toy-1B", httpx.ConnectError("no route")),
        ("unsloth/Toy-1B", OSError()),
    ],
)
def test_a_failed_download_is_one_line(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch, hub: str, error: Exception | None
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    if error is not None:
        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    message = rf"model {hub}: revision main cannot be downloaded from the hub \(.+\)\. Fix: check the id"
    with pytest.raises(UserError, match=message) as raised:
        resolve_folder(replace(HUB, hub=hub))
    assert "\n" not in str(raised.value)


def test_a_chat_template_in_another_encoding_is_one_line(tmp_path: Path, toy_llama: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_bytes("{{ messages[0].content }}".encode("utf-16"))
    entry = replace(HUB, hub=None, path=str(toy_llama), chat_template=str(file))
    with pytest.raises(UserError, match=r"^chat_template .*: not read .* Fix: "):
        load_tokenizer(entry)


def test_a_longest_length_that_is_no_number_is_one_line(tmp_path: Path, toy_llama: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(toy_llama, folder)
    add(folder / "tokenizer_config.json", model_max_length="many")
    with pytest.raises(UserError, match=r"model_max_length is not a number: 'many'.*Fix: "):
        load_tokenizer(replace(HUB, hub=None, path=str(folder)))


@pytest.fixture
def with_own_code(tmp_path: Path, toy_llama: Path) -> Path:
    """A model folder with a Python module that fails when it is imported."""
    folder = shutil.copytree(toy_llama, tmp_path / "own_code")
    (folder / "mine.py").write_text("raise SystemExit('code of a model folder was run')")
    return folder


def add(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_known_family_is_loaded_without_the_folder_s_code(with_own_code: Path) -> None:
    modules = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model", "AutoTokenizer": ["mine.Slow", None]}
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        if (with_own_code / name).exists():
            add(with_own_code / name, auto_map=modules)
    entry = ModelEntry(path=str(with_own_code), precision="32bit", chat_template=None)
    assert type(load_base(entry, device="cpu")).__module__.startswith("transformers.")
    assert load_tokenizer(entry).chat_template


@pytest.mark.parametrize(("family", "known"), [("mine", False), ("vit", False), ("olmo2", True)])
def test_a_family_that_needs_the_folder_s_code_is_refused(with_own_code: Path, family: str, known: bool) -> None:
    add(with_own_code / "config.json", model_type=family, auto_map={"AutoModelForCausalLM": "mine.Model"})
    if known:
        assert check_model_folder(with_own_code) == family
    else:
        with pytest.raises(UserError, match=r"config\.json asks to run the model's own code \(auto_map\).*Fix: use a"):
            check_model_folder(with_own_code)


def test_a_tokenizer_that_needs_the_folder_s_code_is_refused(with_own_code: Path) -> None:
    file = with_own_code / "tokenizer_config.json"
    add(file, tokenizer_class="Mine", auto_map={"AutoTokenizer": ["mine.Slow", None]})
    entry = ModelEntry(path=str(with_own_code), precision="32bit", chat_template=None)
    with pytest.raises(
        UserError, match=r"tokenizer_config\.json asks to run the model's own code.*Fix: set tokenizer_"
    ):
        load_tokenizer(entry)
    add(file, tokenizer_class="PreTrainedTokenizerFast")
    assert load_tokenizer(entry).chat_template


@pytest.fixture
def no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU without bfloat16, such as a T4."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)


def test_gemma_3_computes_in_float32_without_bf16(no_bf16: None) -> None:
    kinds = ("llama", "gemma2", "gemma3", "gemma3_text")
    found = [half_dtype(kind, device="cuda") for kind in kinds]
    assert found == [torch.float16, torch.float16, torch.float32, torch.float32]
    assert {half_dtype(kind, device="cpu") for kind in kinds} == {torch.bfloat16}


def test_gemma_3_is_loaded_in_float32_and_the_score_notes_it(
    no_bf16: None, monkeypatch: pytest.MonkeyPatch, toy_gemma: Path, toy_llama: Path
) -> None:
    from transformers import AutoModelForCausalLM

    load_options: list[dict[str, Any]] = []

    def load(folder: Path, **options: Any) -> Any:
        load_options.append(options)
        model = SimpleNamespace(eval=lambda: None, to=lambda device: None, modules=list)
        return model, {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    for folder, wanted in ((toy_gemma, torch.float32), (toy_llama, torch.float16)):
        entry = ModelEntry(path=str(folder), precision="32bit", chat_template=None)
        for precision in ("4bit", "16bit"):
            load_base(replace(entry, precision=precision), device="cuda")
            notes = precision_notes(replace(entry, precision=precision), device="cuda")
            assert ["computed in float32: a gemma3_text" in note for note in notes] == [True] * (folder == toy_gemma)
        assert [options["dtype"] for options in load_options] == [wanted, wanted]
        assert load_options[0]["quantization_config"].bnb_4bit_compute_dtype == wanted
        assert precision_notes(entry, device="cuda") == ()
        load_options.clear()


def test_gemma_3_is_trained_in_float32_and_the_record_notes_it() -> None:
    from loragrid.training.backends.factory import choose_backend
    from loragrid.training.backends.recipe import Recipe

    fields = dict.fromkeys(Recipe.__dataclass_fields__) | {"compute_dtype": "fp16", "device": "cuda"}
    trl = choose_backend("trl", device="cuda")
    settled, notes = trl.settle(Recipe(**fields), model_type="gemma3_text")
    assert settled.compute_dtype == "fp32" and "overflow float16" in notes[0]
    assert trl.settle(Recipe(**fields), model_type="llama") == (Recipe(**fields), ())
    in_bf16 = Recipe(**(fields | {"compute_dtype": "bf16"}))
    assert trl.settle(in_bf16, model_type="gemma3_text") == (in_bf16, ())
