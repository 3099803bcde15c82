"""Greedy answers in a batch that rows leave are those of transformers' `generate`."""

from pathlib import Path

import pytest
import torch

from loragrid.paths import ROOT
from loragrid.scoring.hf_engine.greedy_decoding import Ends, decodes_greedily, greedy_answers

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
    found = greedy_answers(model, ids, mask, max_new_tokens=20, ends=Ends(frozenset(ends)), pad=PAD)
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


def test_what_all_prompts_begin_with_is_read_once(toy_llama: Path) -> None:
    model, random = load(toy_llama), torch.Generator().manual_seed(2)
    vocabulary = model.config.vocab_size
    common = torch.randint(3, vocabulary, (40,), generator=random).tolist()
    prompts = [common + torch.randint(3, vocabulary, (length,), generator=random).tolist() for length in (3, 9, 5, 1)]
    ids = torch.tensor([[PAD] * (49 - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (49 - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    read = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].numel()))
    found = greedy_answers(model, ids, mask, max_new_tokens=10, ends=Ends(frozenset()), pad=PAD)
    hook.remove()
    assert read[:2] == [40, 4 * 9]
    model.generation_config.eos_token_id = None
    options = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": PAD}
    assert torch.equal(found, model.generate(input_ids=ids, attention_mask=mask, **options))


def test_a_row_with_a_stop_text_leaves_the_batch() -> None:
    from transformers import AutoTokenizer

    folder = ROOT / "resources" / "models" / "llama-s"
    model, tokenizer, stop = load(folder), AutoTokenizer.from_pretrained(folder), " the deer"
    ids = torch.randint(7, 900, (3, 12), generator=torch.Generator().manual_seed(3))
    free = greedy_answers(model, ids, torch.ones_like(ids), max_new_tokens=40, ends=Ends(frozenset()), pad=PAD)
    texts = [tokenizer.decode(row, skip_special_tokens=False) for row in free[:, 12:]]
    assert [stop in text for text in texts] == [False, True, True]
    sizes = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    ends = Ends(frozenset(), (stop,), tokenizer)
    found = greedy_answers(model, ids, torch.ones_like(ids), max_new_tokens=40, ends=ends, pad=PAD)
    hook.remove()
    assert sizes[:8] == [3] * 8 and sizes[24:] == [1] * 16
    for row, whole, text in zip(found[:, 12:], free[:, 12:], texts, strict=True):
        assert tokenizer.decode(row, skip_special_tokens=False).split(stop)[0] == text.split(stop)[0]
        assert (row == whole).all() == (stop not in text)
