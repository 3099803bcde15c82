"""Log-likelihoods with shared beginnings are those of one row at a time; few-shot tasks compute far fewer tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch

from loragrid.scoring.hf_engine.log_likelihoods import log_likelihoods
from loragrid.scoring.hf_engine.shared_prefixes import passes_with_cache, worth_sharing

Row = tuple[list[int], int]


def load(folder: Path, **changes: Any):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    config.update(changes)
    return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()


def alone(model: Any, rows: list[Row]) -> list[tuple[float, bool]]:
    """Each row by itself, with all of its logits."""
    found = []
    for ids, scored in rows:
        with torch.inference_mode():
            logs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)[:-1]
        targets = torch.tensor(ids[1:])
        values, likeliest = logs.gather(1, targets[:, None])[:, 0], logs.argmax(-1)
        found.append((float(values[-scored:].sum()), bool((likeliest == targets)[-scored:].all())))
    return found


def questions(*, shots: int, number: int, choices: int, choice_tokens: int) -> list[Row]:
    """Rows of `number` questions of 20 to 29 tokens behind `shots` common ones, each with its choices."""
    random = torch.Generator().manual_seed(1)

    def draw(length: int) -> list[int]:
        return torch.randint(7, 200, (length,), generator=random).tolist()

    common, rows = draw(shots), []
    for index in range(number):
        stem = common + draw(20 + index % 10)
        rows += [(stem + draw(choice_tokens + which % 2), choice_tokens + which % 2) for which in range(choices)]
    return rows


SHAPES = {
    "one pass": {"shots": 0, "number": 7, "choices": 1, "choice_tokens": 3},
    "choices of a question": {"shots": 0, "number": 7, "choices": 4, "choice_tokens": 2},
    "few-shot": {"shots": 60, "number": 7, "choices": 1, "choice_tokens": 1},
    "few-shot with choices": {"shots": 60, "number": 7, "choices": 4, "choice_tokens": 2},
    "more choices than rows of a pass": {"shots": 20, "number": 2, "choices": 9, "choice_tokens": 3},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("toy", ["toy_llama", "toy_gemma"])
def test_the_values_are_those_of_each_row_alone(toy: str, shape: str, request: pytest.FixtureRequest) -> None:
    model, rows = load(request.getfixturevalue(toy)), questions(**SHAPES[shape])
    # The likeliest token, a row that another one begins with, and one token before the scored ones.
    with torch.inference_mode():
        likeliest = int(model(torch.tensor([rows[0][0][:-1]])).logits[0, -1].argmax())
    rows.append(([*rows[0][0][:-1], likeliest], 1))
    if not SHAPES[shape]["shots"]:
        rows += [(rows[1][0][:20], 1), ([9, 8], 1), (rows[2][0], len(rows[2][0]) - 1)]
    assert passes_with_cache(model)
    found, expected = log_likelihoods(model, rows, batch_size=4), alone(model, rows)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=2e-5)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert any(greedy for _, greedy in found) and not all(greedy for _, greedy in found)


def test_a_window_shorter_than_the_rows_is_seen(toy_gemma: Path) -> None:
    model, rows = load(toy_gemma, sliding_window=16), questions(**SHAPES["few-shot with choices"])
    found, expected = log_likelihoods(model, rows, batch_size=4), alone(model, rows)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=2e-5)


def computed_tokens(model: Any, rows: list[Row]) -> int:
    """Tokens, padding included, that go through the embedding."""
    tokens = 0

    def count(_module: Any, inputs: tuple[torch.Tensor]) -> None:
        nonlocal tokens
        tokens += inputs[0].numel()

    hook = model.get_input_embeddings().register_forward_pre_hook(count)
    log_likelihoods(model, rows, batch_size=8)
    hook.remove()
    return tokens


def test_what_rows_share_is_computed_once(toy_llama: Path) -> None:
    model, rows = load(toy_llama), questions(shots=100, number=16, choices=4, choice_tokens=2)
    whole = sum(len(ids) - 1 for ids, _ in rows)
    assert computed_tokens(model, rows) < whole / 9
    without = questions(shots=0, number=16, choices=4, choice_tokens=2)
    assert computed_tokens(model, without) < sum(len(ids) - 1 for ids, _ in without) / 2


def test_a_prefix_is_shared_only_where_that_saves() -> None:
    common = list(range(30))
    assert worth_sharing([[*common, 1], [*common, 2, 3]]) == 30
    assert worth_sharing([common, common]) == 30
    assert worth_sharing([common]) == 0
    assert worth_sharing([[*common[:15], 99], common]) == 0
    assert worth_sharing([common[:16] + [99] * 200, common[:16] + [98] * 200]) == 0


def test_a_model_with_other_attention_is_left_to_lm_eval(toy_llama: Path) -> None:
    model = load(toy_llama)
    model.config.attention_chunk_size = 8
    assert not passes_with_cache(model)
