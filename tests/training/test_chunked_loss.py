"""TRL's loss in chunks, which the backend trl takes on a GPU: equal to the whole one, and refused where it is not."""

from pathlib import Path
from typing import Any

import pytest

from loragrid.models import batch_sizes
from loragrid.training.backends.chunked_loss import supports_chunks, unpatch
from tests.fixtures.train_toys import make_toy, rows_of
from tests.training.test_packing import load


@pytest.mark.parametrize("changes", [{}, {"base_case__method": "full"}])
def test_a_run_equals_one_with_the_whole_loss(
    changes: dict[str, Any], toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Update by update, held-out losses included; float32."""
    import trl.trainer.sft_trainer as library

    if changes.get("base_case__method") == "full":
        changes |= dict.fromkeys(("base_case__rank", "base_case__alpha", "base_case__target_modules"))
        changes |= {"base_case__dropout": None, "base_case__learning_rate": 1.0e-4}
    else:
        changes = {"base_case__dropout": 0.0} | changes
    toy = make_toy(tmp_path, toy_llama, base_case__budget={"steps": 5}, **changes)
    whole = toy.train(tmp_path / "whole")
    monkeypatch.setitem(batch_sizes.TRL_LOSS, "cpu", "chunked_nll")
    chunk, chunks = library._chunk, []
    monkeypatch.setattr(library, "_chunk", lambda *given: chunks.append(len(given[0])) or chunk(*given))
    chunked = toy.train(tmp_path / "chunked")
    losses = [[float(row["loss"]) for row in rows_of(tmp_path / name)] for name in ("whole", "chunked")]
    assert len(losses[0]) > 5 and losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert chunks and whole.loss_tokens == chunked.loss_tokens and not chunked.notes


def test_a_model_with_another_scale_of_its_logits_is_not_supported(toy_llama: Path, toy_gemma: Path) -> None:
    """Granite divides its logits; TRL would train it on another loss without an error."""
    import transformers as t

    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "pad_token_id": 0, "intermediate_size": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    granite = t.GraniteForCausalLM(t.GraniteConfig(**sizes, **heads, logits_scaling=8.0))
    assert not supports_chunks(granite) and granite.training is True
    capped = t.Gemma2ForCausalLM(t.Gemma2Config(**sizes, **heads, head_dim=8, final_logit_softcapping=0.01))
    cohere = t.CohereForCausalLM(t.CohereConfig(**sizes, **heads, logit_scale=0.1))
    for model in (load(toy_llama, "sdpa"), load(toy_gemma, "sdpa"), capped, cohere):
        assert supports_chunks(model), type(model)


def test_a_run_of_such_a_model_has_all_logits_and_its_record_says_so(
    toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = make_toy(tmp_path, toy_llama, base_case__budget={"steps": 2})
    plain = toy.train(tmp_path / "plain")
    monkeypatch.setitem(batch_sizes.TRL_LOSS, "cpu", "chunked_nll")
    monkeypatch.setattr("loragrid.training.backends.trl.supports_chunks", lambda network: False)
    record = toy.train(tmp_path / "run")
    assert "all logits of a batch at once" in record.notes[0] and record.weights_sha256 == plain.weights_sha256


def test_a_released_base_gives_logits_again(toy_llama: Path, tmp_path: Path) -> None:
    import torch
    from trl.trainer.sft_trainer import _patch_chunked_ce_lm_head

    model, ids = load(toy_llama, "sdpa"), torch.tensor([[1, 9, 8]])
    _patch_chunked_ce_lm_head(model, 256)
    assert model(ids, labels=ids).logits is None
    unpatch(model)
    assert model(ids, labels=ids).logits is not None
    unpatch(model)
