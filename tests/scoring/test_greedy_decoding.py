"""Greedy answers in a batch that rows leave are those of transformers' `generate`."""

from pathlib import Path

import pytest
import torch

from loragrid.scoring.greedy_decoding import decodes_greedily, greedy_answers

PAD = 0


def load(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("toy", ["toy_llama", "toy_gemma"])
def test_answers_are_those_of_generate(toy: str, request: pytest.FixtureRequest) -> None:
    model = load(request.getfixturevalue(toy))
    vocabulary = model.config.get_text_config().vocab_size
    random = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, vocabulary, (length,), generator=random).tolist() for length in (3, 9, 5, 9, 1, 7)]
    ids = torch.tensor([[PAD] * (9 - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (9 - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    free = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=PAD)
    # Tokens that the rows reach at different steps end them, so that rows leave the batch one by one.
    ends = {int(free[0, 9 + 4]), int(free[1, 9 + 11]), int(free[2, 9])}
    model.generation_config.eos_token_id = sorted(ends)
    expected = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=PAD)
    found = greedy_answers(model, ids, mask, max_new_tokens=20, end_ids=ends, pad=PAD)
    assert decodes_greedily(model)
    assert torch.equal(found, expected)
    assert (expected[:, 9:] == PAD).any() and not torch.equal(free[:, : expected.shape[1]], expected)


def test_a_setting_that_changes_logits_is_left_to_generate(toy_llama: Path) -> None:
    model = load(toy_llama)
    assert decodes_greedily(model)
    model.generation_config.temperature = 0.6  # of sampling only
    assert decodes_greedily(model)
    model.generation_config.repetition_penalty = 1.2
    assert not decodes_greedily(model)
