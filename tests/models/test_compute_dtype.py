"""The dtype that a model computes in: the values of its weights stay."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from loragrid.models.compute_dtype import compute_in
from loragrid.models.loading import load_base
from loragrid.study.sections import ModelEntry


@pytest.mark.parametrize("precision", ["16bit", "4bit"])
def test_a_model_computes_in_another_dtype_with_the_same_weights(precision: str, toy_llama: Path) -> None:
    import torch

    if precision == "4bit" and find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed: requirements-gpu.txt")
    entry, ids = ModelEntry(chat_template=None, path=str(toy_llama), precision=precision), torch.arange(7, 47)[None]
    model = load_base(entry, device="cpu")
    before = {name: value.double() for name, value in model.state_dict().items()}
    with torch.no_grad():
        assert compute_in(model, None)(ids).logits.dtype == torch.bfloat16
        logits = compute_in(model, "float32")(ids).logits
    # In bfloat16 almost every logit would be one of its numbers.
    assert logits.dtype == torch.float32 and (logits.bfloat16().float() != logits).float().mean() > 0.9
    assert all(torch.equal(value.double(), before[name]) for name, value in model.state_dict().items())
