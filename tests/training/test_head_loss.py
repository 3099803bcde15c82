"""The training loss on a CPU, a few tokens' logits at a time: transformers' own, and only where it is the same."""

from pathlib import Path

import pytest

from loragrid.models import batch_sizes
from loragrid.models.passes.padding_free import enable_padding_free, loss_only
from loragrid.training.backends import head_loss as head_loss_module
from loragrid.training.backends.head_loss import head_loss, supports_head_loss
from tests.models.passes.test_padding_free import batches
from tests.training.test_packing import load


@pytest.mark.parametrize("family", ["toy_llama", "toy_gemma"])
def test_loss_and_gradients_are_those_of_transformers(
    family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four samples in parts of six tokens, the last of them smaller; one logit is far above the others."""
    import torch

    folder, (_, flat) = request.getfixturevalue(family), batches()
    plain, ours = load(folder, "sdpa"), load(folder, "sdpa")
    for model in (plain, ours):
        enable_padding_free(model)
        model.get_output_embeddings().weight.requires_grad_(False)[9] *= 200
    monkeypatch.setattr(batch_sizes, "LOGITS_PER_PART", 1)
    monkeypatch.setattr(batch_sizes, "LEAST_ROWS", 6)
    inputs = flat | loss_only(flat["labels"])
    tokens = inputs["shift_labels"].numel()
    assert tokens % 6 and tokens > 12 and supports_head_loss(ours)
    losses = plain(**inputs, use_cache=False, num_items_in_batch=40).loss, head_loss(ours, inputs, items=40)
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-6)
    for loss in losses:
        loss.backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), ours.named_parameters(), strict=True):
        if a.requires_grad:
            assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-5 * float(a.grad.abs().max())), name


def test_no_token_with_loss_is_no_loss(toy_llama: Path) -> None:
    import torch

    _, flat = batches()
    model = load(toy_llama, "sdpa")
    enable_padding_free(model)
    labels = torch.full_like(flat["labels"], -100)
    loss = head_loss(model, flat | loss_only(labels), items=7)
    loss.backward()
    assert loss.item() == 0 and not any(one.grad.any() for one in model.parameters() if one.grad is not None)


def test_a_model_with_another_loss_is_not_supported(toy_llama: Path) -> None:
    """Logits that are scaled or capped, a trained or half-precision head, and attention that takes padding."""
    import torch
    import transformers as t

    heads = {"intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1}
    sizes = heads | {"vocab_size": 50, "hidden_size": 16, "pad_token_id": 0, "max_position_embeddings": 64}
    others = (
        t.GraniteForCausalLM(t.GraniteConfig(**sizes, logits_scaling=8.0)),
        t.Gemma2ForCausalLM(t.Gemma2Config(**sizes, head_dim=8, final_logit_softcapping=0.05)),
    )
    for model in others:
        model.requires_grad_(False)
        enable_padding_free(model.eval())
        assert not supports_head_loss(model), type(model)
    model = load(toy_llama, "sdpa").requires_grad_(False)
    assert not supports_head_loss(model)
    enable_padding_free(model)
    assert supports_head_loss(model)
    model.get_output_embeddings().weight.requires_grad_(True)
    assert not supports_head_loss(model)
    half = model.requires_grad_(False).to(torch.bfloat16)
    assert not supports_head_loss(half)


def test_the_families_that_the_plan_counts_it_for_have_it() -> None:
    import transformers as t

    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0, "max_position_embeddings": 64}
    for family in batch_sizes.HEAD_LOSS_FAMILIES:
        model = t.AutoModelForCausalLM.from_config(t.AutoConfig.for_model(family, **sizes)).requires_grad_(False)
        enable_padding_free(model.eval())
        assert supports_head_loss(model), family


def test_its_memory_is_what_the_plan_counts() -> None:
    """Bytes for each word more, by torch's own record of allocations: the logits of one part, and no copy of them."""
    import torch

    def peak(vocabulary: int) -> int:
        hidden, weight = torch.randn(600, 16, requires_grad=True), torch.randn(vocabulary, 16)
        targets = torch.arange(600)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            head_loss_module._cross_entropy().apply(hidden, weight, targets).backward()
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        live = highest = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            live += event.nbytes()
            highest = max(highest, live)
        return highest

    counted = [batch_sizes.head_loss_bytes(tokens=600, vocab_size=size, hidden_size=16) for size in (20_000, 40_000)]
    assert peak(40_000) - peak(20_000) == pytest.approx(counted[1] - counted[0], rel=0.01)
