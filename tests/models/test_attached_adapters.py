"""Adapters that are part of a base's weights for a while."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.models.attached_adapters import attach_adapter, merged
from loragrid.models.compute_dtype import compute_in
from loragrid.models.loading import load_base
from loragrid.study.sections import ModelEntry


def adapter(base: Any, folder: Path, **settings: Any) -> Path:
    """A LoRA adapter of random weights, or of another kind if `kind` is given; `targets`: the adapted layers."""
    import torch
    from peft import LoraConfig, get_peft_model

    kind, targets = settings.pop("kind", LoraConfig), settings.pop("targets", ["q_proj", "down_proj"])
    options = {"r": 4, "lora_alpha": 8} if kind is LoraConfig else {"feedforward_modules": ["down_proj"]}
    model = get_peft_model(base, kind(target_modules=targets, **options, **settings))
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.1
    model.save_pretrained(folder)
    model.unload()
    return folder


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.arange(10, 40).view(2, -1)).logits


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_a_merged_adapter_computes_alike_and_leaves_the_base_as_it_was(
    toy_llama: Path, tmp_path: Path, settings: dict[str, bool]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(toy_llama).eval()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = attach_adapter(base, adapter(base, tmp_path, **settings))
    attached = logits(model)
    with merged(model):
        together = logits(model)
        assert torch.allclose(together, attached, atol=1e-5) and not torch.equal(together, attached)
        changed = model.get_base_model().state_dict()
        assert any(
            "q_proj" in name and not torch.equal(changed[name], before[plain(name)])
            for name in changed
            if plain(name) in before
        )
    assert torch.equal(logits(model), attached)
    after = model.unload().state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def plain(name: str) -> str:
    return name.replace(".base_layer", "")


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: requirements-gpu.txt")
def test_4_bit_weights_are_not_merged_even_where_they_are_computed_with_in_float32(
    toy_llama: Path, tmp_path: Path
) -> None:
    import torch

    base = load_base(ModelEntry(chat_template=None, path=str(toy_llama), precision="4bit"), device="cpu")
    model = attach_adapter(compute_in(base, "float32"), adapter(base, tmp_path))
    attached = logits(model)
    with merged(model):
        assert torch.equal(logits(model), attached) and attached.dtype == torch.float32


@pytest.mark.parametrize("layer", ["embed_tokens", "lm_head"])
@pytest.mark.filterwarnings("ignore:Model (with|has) `tie_word_embeddings")
def test_a_tied_weight_is_not_merged_for_its_other_layer_would_change_too(
    toy_llama: Path, tmp_path: Path, layer: str
) -> None:
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    for tied in (True, False):
        base = LlamaForCausalLM(AutoConfig.from_pretrained(toy_llama, tie_word_embeddings=tied)).eval()
        model = attach_adapter(base, adapter(base, tmp_path / str(tied), targets=[layer]))
        attached = logits(model)
        with merged(model):
            together = logits(model)
        assert torch.allclose(together, attached, atol=1e-4)


def test_an_adapter_with_a_bias_is_not_merged_into_layers_without_one(toy_llama: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(toy_llama).eval()
    model = attach_adapter(base, adapter(base, tmp_path, lora_bias=True))
    attached = logits(model)
    with merged(model):
        assert torch.equal(logits(model), attached)


def test_under_autocast_nothing_is_merged(toy_llama: Path, tmp_path: Path) -> None:
    """The sum would be rounded to 16 bits, and with it the adapter's part."""
    import torch
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(toy_llama).eval()
    model = attach_adapter(base, adapter(base, tmp_path))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attached = logits(model)
        with merged(model):
            assert torch.equal(logits(model), attached)


def test_an_error_within_leaves_the_base_as_it_was(toy_llama: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(toy_llama).eval()
    model = attach_adapter(base, adapter(base, tmp_path))
    attached = logits(model)
    with pytest.raises(RuntimeError, match="in the task"), merged(model):
        raise RuntimeError("in the task")
    assert torch.equal(logits(model), attached)


def test_other_adapters_half_precisions_and_bases_stay_as_they_are(toy_llama: Path, tmp_path: Path) -> None:
    import torch
    from peft import IA3Config
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(toy_llama).eval()
    half = AutoModelForCausalLM.from_pretrained(toy_llama, dtype=torch.bfloat16).eval()
    lora, ia3 = adapter(base, tmp_path / "lora"), adapter(base, tmp_path / "ia3", kind=IA3Config)
    for model in (base, attach_adapter(half, lora), attach_adapter(base, ia3)):
        alone = logits(model)
        with merged(model):
            assert torch.equal(logits(model), alone)


def test_an_adapter_of_which_the_base_takes_nothing_is_refused(toy_llama: Path, tmp_path: Path) -> None:
    """PEFT would leave the base as it is and warn."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(toy_llama).eval()
    folder = adapter(base, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    renamed = {name.replace("model.layers", "model.decoder.layers"): weight for name, weight in weights.items()}
    save_file(renamed, folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"the adapter does not fit its base \(Found missing adapter keys"):
        attach_adapter(base, folder)
