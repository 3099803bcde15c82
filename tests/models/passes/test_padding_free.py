"""Batches without padding: equal to padded ones, for every model that supports them; others stay padded."""

from pathlib import Path
from typing import Any

import pytest

from loragrid.models.passes.padding_free import enable_padding_free, is_padding_free, loss_only
from loragrid.training.backends.factory import choose_backend
from loragrid.training.backends.recipe import make_recipe
from tests.fixtures.train_toys import make_toy, rows_of
from tests.training.test_packing import WINDOW, load

LENGTHS = (9, 4, 17, 1)


def batches() -> tuple[dict[str, Any], dict[str, Any]]:
    """The same samples padded and in one row, by TRL's collator; a third of each carries no loss."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    torch.manual_seed(3)
    ids = [torch.randint(7, 263, (length,)).tolist() for length in LENGTHS]
    rows = [{"input_ids": row, "labels": [-100] * (len(row) // 3) + row[len(row) // 3 :]} for row in ids]
    padded, flat = (DataCollatorForLanguageModeling(pad_token_id=0, padding_free=free)(rows) for free in (False, True))
    return padded, flat


@pytest.mark.parametrize("family", ["toy_llama", "toy_gemma"])
def test_loss_and_gradients_are_those_of_a_padded_batch(family: str, request: pytest.FixtureRequest) -> None:
    """Gemma's local layers see less than a sample. Logits are computed only where there is loss."""
    import torch

    folder, (padded, flat) = request.getfixturevalue(family), batches()
    plain, ours = load(folder, "sdpa"), load(folder, "sdpa")
    enable_padding_free(ours)
    assert is_padding_free(ours) and not is_padding_free(plain) and max(LENGTHS) > 2 * WINDOW
    expected = plain(**padded, use_cache=False)
    found = ours(**flat, **loss_only(flat["labels"]), use_cache=False)
    assert found.logits.shape[1] == int((padded["labels"][:, 1:] != -100).sum()) < sum(LENGTHS) - len(LENGTHS)
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    for output in (expected, found):
        output.loss.backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), ours.named_parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6), name


def test_a_run_equals_one_with_padded_batches(toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Update by update, held-out losses included."""
    toy = make_toy(tmp_path, toy_llama, base_case__dropout=0.0)
    unpadded = toy.train(tmp_path / "unpadded")
    monkeypatch.setattr("loragrid.training.backends.trl.enable_padding_free", lambda *_, **__: None)
    padded = toy.train(tmp_path / "padded")
    losses = [[float(row["loss"]) for row in rows_of(tmp_path / name)] for name in ("unpadded", "padded")]
    assert len(losses[0]) > 12 and losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert (unpadded.samples, unpadded.tokens, unpadded.loss_tokens) == (
        padded.samples,
        padded.tokens,
        padded.loss_tokens,
    )
    assert unpadded.padding_share == 0.0 and 0.1 < padded.padding_share < 0.5


def test_a_model_that_does_not_support_it_is_padded() -> None:
    """With these, one sample would see the one before it, or no sample what it should.

    A convolution, a recurrent state, attention that is not told of samples or of its window, attention in both
    directions, and another implementation of attention.
    """
    import transformers as t

    heads = {
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
    }
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "pad_token_id": 0}
    gemma = sizes | heads | {"head_dim": 8}
    others = (
        t.Lfm2ForCausalLM(t.Lfm2Config(**sizes, **heads, layer_types=["conv", "full_attention"])),
        t.MambaForCausalLM(t.MambaConfig(**sizes)),
        t.Ministral3ForCausalLM(t.Ministral3Config(**sizes, **heads, head_dim=8)),
        t.PhimoeForCausalLM(t.PhimoeConfig(**sizes, **heads, sliding_window=16, num_local_experts=2)),
        t.Gemma3ForCausalLM(t.Gemma3TextConfig(**gemma, use_bidirectional_attention=True)),
        t.LlamaForCausalLM._from_config(t.LlamaConfig(**sizes, **heads), attn_implementation="eager"),
    )
    for model in others:
        before = model.config._attn_implementation
        enable_padding_free(model.eval())
        assert model.config._attn_implementation == before and not is_padding_free(model), type(model)
    for model in (
        t.LlamaForCausalLM(t.LlamaConfig(**sizes, **heads)),
        t.Qwen3ForCausalLM(t.Qwen3Config(**sizes, **heads, head_dim=8)),
        t.MistralForCausalLM(t.MistralConfig(**sizes, **heads, sliding_window=4)),
        t.Gemma3ForCausalLM(t.Gemma3TextConfig(**gemma)),
        t.GPT2LMHeadModel(t.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)),
    ):
        enable_padding_free(model.eval())
        assert is_padding_free(model), type(model)


def test_attention_without_the_begins_of_samples_is_refused(toy_llama: Path) -> None:
    """Several rows at once, as in generation, would be taken for samples of one row."""
    padded, _ = batches()
    model = load(toy_llama, "sdpa")
    enable_padding_free(model)
    for refused in (padded, {"input_ids": padded["input_ids"], "position_ids": None}):
        with pytest.raises(RuntimeError, match="where samples begin"):
            model(**refused)


def test_a_base_on_a_gpu_has_no_padding_unless_it_is_split(
    toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base that is to be split is not on a device yet."""
    import dataclasses

    from loragrid.models import loading

    def on_cpu(entry: Any, device: str, place: bool = True) -> Any:
        return loading.load_base(entry, device="cpu")

    toy = make_toy(tmp_path, toy_llama)
    recipe = make_recipe(toy.study, toy.cell, device="cpu")
    entry, backend = toy.study.base_entry(toy.cell), choose_backend("trl", device="cpu")
    monkeypatch.setattr("loragrid.models.base_cache.load_base", on_cpu)
    monkeypatch.setattr("loragrid.training.backends.trl.load_base", on_cpu)
    on_gpu = dataclasses.replace(recipe, device="cuda")
    assert is_padding_free(backend.load(entry, recipe=on_gpu).model)
    assert not is_padding_free(backend.load(entry, recipe=dataclasses.replace(on_gpu, split=True)).model)
