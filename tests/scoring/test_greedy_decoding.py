"""Greedy answers whose rows leave the batch, and whose places the next prompts take, are those of transformers' `generate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from loragrid.models import batch_sizes
from loragrid.paths import ROOT
from loragrid.scoring.hf_engine.greedy_decoding import Ends, Request, decodes_greedily, greedy_answers, rows_of_a_step
from loragrid.scoring.hf_engine.slot_attention import supports_slots

NO_ENDS = Ends(frozenset())


# A window that prompts and prefixes exceed.
TOYS = (("toy_llama", {}), ("toy_gemma", {}), ("toy_gemma", {"sliding_window": 8}))


def load(folder: Path, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()


def random_prompts(model: Any, lengths: Sequence[int], *, seed: int) -> list[list[int]]:
    random = torch.Generator().manual_seed(seed)
    vocabulary = model.config.get_text_config().vocab_size
    return [torch.randint(3, vocabulary, (length,), generator=random).tolist() for length in lengths]


def generated(model: Any, prompt: list[int], most: int, ends: list[int] | None = None) -> list[int]:
    """What transformers writes for this prompt alone."""
    model.generation_config.eos_token_id = ends
    ids = torch.tensor([prompt])
    options = {"max_new_tokens": most, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    return model.generate(input_ids=ids, **options)[0, len(prompt) :].tolist()


def answers(model: Any, prompts: list[list[int]], most: Sequence[int], ends: Ends = NO_ENDS, rows: int = 4) -> list:
    requests = [Request(prompt, limit) for prompt, limit in zip(prompts, most, strict=True)]
    found = dict(greedy_answers(model, requests, ends=ends, batch_size=rows))
    return [found[place] for place in range(len(prompts))]


@pytest.fixture
def four_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_sizes, "ROWS_ON_CPU", 1)


@pytest.mark.usefixtures("four_rows")
@pytest.mark.parametrize(("toy", "options"), TOYS)
def test_answers_are_those_of_generate(toy: str, options: dict[str, int], request: pytest.FixtureRequest) -> None:
    """More prompts than slots, and limits and end tokens that rows reach at different steps."""
    model = load(request.getfixturevalue(toy), **options)
    prompts = random_prompts(model, (3, 9, 5, 40, 1, 7, 12), seed=1)
    most = (20, 20, 5, 20, 1, 20, 20)
    free = [generated(model, prompt, limit) for prompt, limit in zip(prompts, most, strict=True)]
    ends = sorted({free[0][4], free[1][11], free[3][0]})
    expected = [generated(model, prompt, limit, ends) for prompt, limit in zip(prompts, most, strict=True)]
    model.generation_config.eos_token_id = None
    assert decodes_greedily(model)
    assert answers(model, prompts, most, Ends(frozenset(ends))) == expected
    assert len(expected[0]) < 20 and expected != free
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("toy", "options"), TOYS)
def test_what_all_prompts_begin_with_is_read_once(
    toy: str, options: dict[str, int], request: pytest.FixtureRequest
) -> None:
    model = load(request.getfixturevalue(toy), **options)
    (common,) = random_prompts(model, (40,), seed=2)
    prompts = [common + own for own in random_prompts(model, (3, 9, 5, 1), seed=3)]
    read = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].numel()))
    found = answers(model, prompts, [10] * 4)
    hook.remove()
    assert read == [40, 3 + 9 + 5 + 1] + [4] * 9
    assert found == [generated(model, prompt, 10) for prompt in prompts]


@pytest.mark.usefixtures("four_rows")
def test_an_answer_does_not_depend_on_the_others(toy_llama: Path) -> None:
    """So a job that was interrupted may ask only for the rest."""
    model = load(toy_llama)
    prompts = random_prompts(model, range(5, 17), seed=4)
    together = answers(model, prompts, [30] * 12)
    assert answers(model, prompts[7:], [30] * 5) == together[7:]


def test_a_setting_that_changes_logits_is_left_to_generate(toy_llama: Path) -> None:
    model = load(toy_llama)
    assert decodes_greedily(model)
    model.generation_config.temperature = 0.6  # of sampling only
    assert decodes_greedily(model)
    model.generation_config.repetition_penalty = 1.2
    assert not decodes_greedily(model)


def test_a_model_that_would_compute_something_else_is_left_to_generate(toy_llama: Path) -> None:
    model = load(toy_llama)
    assert supports_slots(model)
    # An attention with twice the scale, which the model applies by itself and does not pass on to the slots.
    layer = model.model.layers[0].self_attn
    hook = layer.q_proj.register_forward_hook(lambda _, inputs, out: out * (1 + inputs[0].shape[1] / 10))
    assert not supports_slots(model)
    hook.remove()
    model.set_attn_implementation("eager")
    assert not supports_slots(model)


def test_a_cpu_writes_many_rows_at_once_as_far_as_memory_allows(toy_llama: Path) -> None:
    model = load(toy_llama)
    config = model.config
    row = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    assert rows_of_a_step(model, 4, 100) == batch_sizes.ROWS_ON_CPU
    assert rows_of_a_step(model, 4, batch_sizes.CACHE_BYTES // row // 7) == 7
    assert rows_of_a_step(model, 4, batch_sizes.CACHE_BYTES // row) == 4


def test_a_row_with_a_stop_text_leaves_the_batch() -> None:
    from transformers import AutoTokenizer

    folder = ROOT / "resources" / "models" / "llama-s"
    model, tokenizer, stop = load(folder), AutoTokenizer.from_pretrained(folder), " the deer"
    prompts = torch.randint(7, 900, (3, 12), generator=torch.Generator().manual_seed(3)).tolist()
    free = answers(model, prompts, [40] * 3)
    texts = [tokenizer.decode(row, skip_special_tokens=False) for row in free]
    assert [stop in text for text in texts] == [False, True, True]
    sizes = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    found = answers(model, prompts, [40] * 3, Ends(frozenset(), (stop,), tokenizer))
    hook.remove()
    # The first pass reads all prompts in one row.
    assert sizes[1:8] == [3] * 7 and sizes[24:] == [1] * 16
    for row, whole, text in zip(found, free, texts, strict=True):
        assert tokenizer.decode(row, skip_special_tokens=False).split(stop)[0] == text.split(stop)[0]
        assert whole[: len(row)] == row and (len(row) == 40) == (stop not in text)
