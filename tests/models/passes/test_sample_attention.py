"""Attention within samples: which one a card has, and the same losses from each. No kernel of a GPU runs here."""

from pathlib import Path
from typing import Any

import pytest

from loragrid.models.passes import sample_attention
from loragrid.models.passes.padding_free import enable_padding_free, loss_only
from loragrid.models.passes.sample_attention import PER_SAMPLE, VARLEN, has_kernel, samples_of
from tests.models.passes.test_padding_free import LENGTHS, batches
from tests.training.test_packing import WINDOW, load

A100 = {"capability": (8, 0), "dtype": "bf16", "head_size": 64, "available": True}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"capability": (9, 0), "head_size": 256, "dtype": "fp16"}, True),
        ({"capability": (7, 5), "dtype": "fp16"}, False),  # a T4
        ({"dtype": "fp32"}, False),
        ({"available": False}, False),
        ({"head_size": 264}, False),
        ({"head_size": 60}, False),
        ({"capability": (8, 9), "head_size": 208}, False),
        ({"capability": (8, 9), "head_size": 256}, True),
        ({"capability": (8, 0), "head_size": 208}, True),
    ],
)
def test_the_kernel_needs_a_card_a_dtype_and_a_size_of_heads(change: dict[str, Any], expected: bool) -> None:
    assert has_kernel(**A100 | change) is expected


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The kernel by its documentation, in float32 on a CPU; the list gets the window of each call."""
    import torch

    windows = []

    def varlen_attn(
        q: Any, k: Any, v: Any, bounds: Any, bounds_k: Any, longest: int, longest_k: int, **more: Any
    ) -> Any:
        assert q.shape[1] == k.shape[1] or more["enable_gqa"]
        assert bounds is bounds_k and bounds.dtype == torch.int32 and longest == longest_k
        windows.append(more["window_size"])
        left, right = more["window_size"]
        sizes, parts = bounds.diff().tolist(), []
        assert max(sizes) == longest and right == 0
        for one_q, one_k, one_v in zip(q.split(sizes), k.split(sizes), v.split(sizes), strict=True):
            groups = one_q.shape[1] // one_k.shape[1]
            one_k, one_v = (states.repeat_interleave(groups, dim=1) for states in (one_k, one_v))
            scores = torch.einsum("qhd,khd->hqk", one_q, one_k) * more["scale"]
            back = torch.arange(len(one_q))[:, None] - torch.arange(len(one_q))
            hidden = (back < 0) | ((back > left) & (left >= 0))
            weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
            parts.append(torch.einsum("hqk,khd->qhd", weights, one_v))
        return torch.cat(parts)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr(
        "loragrid.models.passes.padding_free.supported_attentions", lambda model, dtype: (VARLEN, PER_SAMPLE)
    )
    return windows


@pytest.mark.parametrize("family", ["toy_llama", "toy_gemma"])
def test_the_kernel_gives_the_losses_and_gradients_of_a_padded_batch(
    family: str, request: pytest.FixtureRequest, kernel: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    folder, (padded, flat) = request.getfixturevalue(family), batches()
    plain, ours = load(folder, "sdpa"), load(folder, "sdpa")
    enable_padding_free(ours, compute_dtype="bf16")
    assert ours.config._attn_implementation == VARLEN and kernel
    # The kernel itself has no float32, in which losses can be compared to 1e-5.
    monkeypatch.setattr(sample_attention, "_in_kernel_dtype", lambda states: True)
    kernel.clear()
    expected = plain(**padded, use_cache=False)
    found = ours(**flat, **loss_only(flat["labels"]), use_cache=False)
    local = getattr(ours.config, "layer_types", None) or []
    assert len(kernel) == ours.config.num_hidden_layers and max(LENGTHS) > WINDOW
    assert kernel.count((WINDOW - 1, 0)) == local.count("sliding_attention")
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    for output in (expected, found):
        output.loss.backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), ours.named_parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6), name


def test_a_kernel_that_fails_the_probe_leaves_attention_by_sample(
    toy_llama: Path, kernel: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(toy_llama, "sdpa")
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", lambda q, *_, **__: q * float("nan"))
    enable_padding_free(model, compute_dtype="bf16")
    assert model.config._attn_implementation == PER_SAMPLE


def test_a_pass_in_float32_is_done_by_sample(toy_llama: Path, kernel: list) -> None:
    """Held-out losses are measured without autocast."""
    _, flat = batches()
    ours, by_sample = load(toy_llama, "sdpa"), load(toy_llama, "sdpa")
    enable_padding_free(ours, compute_dtype="bf16")
    by_sample.set_attn_implementation(PER_SAMPLE)
    kernel.clear()
    losses = [model(**flat, use_cache=False).loss.item() for model in (ours, by_sample)]
    assert losses[0] == losses[1] and not kernel


def test_lengths_are_read_once_a_batch(toy_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading would wait for a GPU; recomputed activations read nothing either."""
    _, flat = batches()
    model, read = load(toy_llama, "sdpa"), []
    enable_padding_free(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    reading = sample_attention._read_samples
    monkeypatch.setattr(sample_attention, "_read_samples", lambda ids: read.append(ids) or reading(ids))
    model(**flat, use_cache=False).loss.backward()
    assert len(read) == 1 and model.config.num_hidden_layers > 1
    assert samples_of(flat["position_ids"]).lengths == list(LENGTHS)
    # The same tensor with other samples is another batch.
    flat["position_ids"][0, :] = 1
    flat["position_ids"][0, 0] = 0
    assert samples_of(flat["position_ids"]).lengths == [sum(LENGTHS)]


def test_the_loss_in_chunks_is_tried_with_attention_by_sample(toy_llama: Path) -> None:
    from loragrid.training.backends.chunked_loss import supports_chunks

    model = load(toy_llama, "sdpa")
    enable_padding_free(model)
    assert supports_chunks(model) and model.config._attn_implementation == PER_SAMPLE
