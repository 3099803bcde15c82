"""The short card of an adapter folder, and its base, which is found from any other folder."""

import ast
import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from loragrid.models.adapter_card import CARD, adapter_card, named_base
from loragrid.models.adapter_files import save_trained
from tests.fixtures.train_toys import make_toy


def test_a_base_is_named_by_its_commit_or_its_absolute_folder(root: Path) -> None:
    assert named_base("owner/base", "abc") == "owner/base"
    assert named_base("resources/models/llama-s", None) == str(root / "resources" / "models" / "llama-s")
    assert named_base("/elsewhere/base", None) == "/elsewhere/base"


def test_the_card_of_a_hub_base() -> None:
    config = {"base_model_name_or_path": "owner/base", "revision": "abc", "r": 8, "peft_type": "LORA"}
    text = adapter_card(config, four_bits=False)
    found = ModelCard(text).data
    assert (found.base_model, found.library_name) == ("owner/base", "peft")
    assert "`owner/base` at commit `abc`" in text and '("owner/base", revision="abc")' in text and "- r: 8" in text
    quantized = adapter_card(config, four_bits=True)
    assert '("owner/base", revision="abc", quantization_config=four_bits)' in quantized and "four_bits" not in text
    ast.parse(quantized.split("```")[1].removeprefix("python"))


def test_the_card_of_an_export_loads_its_own_tokenizer_and_names_no_place_of_a_local_base() -> None:
    config = {"base_model_name_or_path": "base", "revision": None, "r": 8}
    text = adapter_card(config, four_bits=False, exported=True)
    assert 'AutoModelForCausalLM.from_pretrained("path/to/base")' in text
    assert 'AutoTokenizer.from_pretrained("path/to/this/folder")' in text and "the local folder `base`" in text


def test_the_folder_that_training_leaves_loads_from_anywhere_with_plain_peft(
    toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM

    toy = make_toy(tmp_path / "study", toy_llama, base_case__budget={"steps": 1}, base_case__evaluations=1)
    toy.train(tmp_path / "run")
    monkeypatch.chdir("/")
    folder = tmp_path / "run" / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    base = config["base_model_name_or_path"]
    assert base == str(toy_llama) and config["revision"] is None
    assert (
        f'"{base}"' in (folder / CARD).read_text() and ModelCard.load(folder / CARD).data.base_model == toy_llama.name
    )
    assert PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).active_adapter == "default"
    assert AutoPeftModelForCausalLM.from_pretrained(str(folder)).active_adapter == "default"
    # The weights that are kept along the budget are saved so too.
    again = save_trained(AutoPeftModelForCausalLM.from_pretrained(str(folder)), tmp_path, tokenizer=None)
    assert (again / CARD).read_bytes() == (folder / CARD).read_bytes()
