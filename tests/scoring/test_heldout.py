import math
import random

import pytest

from loragrid.errors import UserError
from loragrid.scoring.heldout_loss import heldout_loss, read_rows, token_losses, weighted_mean


@pytest.fixture(scope="module", params=["toy_llama", "toy_gemma"])
def model(request):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(request.getfixturevalue(request.param)).eval()


def some_rows(n=23, longest=60):
    rng = random.Random(1)
    rows = []
    for _ in range(n):
        ids = [rng.randrange(7, 200) for _ in range(rng.randint(4, longest))]
        answer = rng.randint(1, len(ids) - 2)
        rows.append((ids, [-100] * answer + ids[answer:]))
    return rows


def write_rows(path, rows):
    import pandas

    table = {"row": range(len(rows)), "input_ids": [ids for ids, _ in rows], "labels": [labels for _, labels in rows]}
    pandas.DataFrame(table).to_parquet(path)
    return path


def test_neither_batch_nor_padding_changes_a_row(model):
    rows = some_rows()
    alone = [token_losses(model, [row], batch_size=1)[0] for row in rows]
    together = token_losses(model, rows, batch_size=8)
    assert [count for _, count in together] == [sum(label != -100 for label in labels) for _, labels in rows]
    assert [total for total, _ in together] == pytest.approx([total for total, _ in alone], rel=1e-5)


def test_losses_are_those_of_the_model_itself(model):
    import torch

    rows = some_rows(5)
    ours = token_losses(model, rows, batch_size=2)
    for (ids, labels), (total, count) in zip(rows, ours, strict=True):
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
        assert total / count == pytest.approx(loss, rel=1e-5)


def test_a_large_vocabulary_gets_smaller_passes(model, monkeypatch):
    rows = some_rows(9)
    expected = token_losses(model, rows, batch_size=9)
    monkeypatch.setattr("loragrid.scoring.heldout_loss.LOGITS_PER_PASS", 1)
    assert [t for t, _ in token_losses(model, rows, batch_size=9)] == pytest.approx([t for t, _ in expected], rel=1e-5)


def test_a_row_longer_than_the_context_is_refused(model):
    too_long = ([7] * 600, [-100] + [7] * 599)
    with pytest.raises(ValueError, match="600 tokens is longer than the model's context of 512"):
        token_losses(model, [too_long], batch_size=1)


def test_loss_is_weighted_by_tokens_and_every_row_is_an_item(model, tmp_path):
    rows = some_rows()
    result = heldout_loss(model, write_rows(tmp_path / "heldout.parquet", rows), batch_size=7)
    sums = token_losses(model, rows, batch_size=7)
    assert result.metrics["loss"]["value"] == pytest.approx(sum(t for t, _ in sums) / sum(n for _, n in sums))
    assert result.metrics["perplexity"]["value"] == pytest.approx(math.exp(result.metrics["loss"]["value"]))
    assert result.metrics["loss"]["higher_is_better"] is False
    values = {row["item"]: row["value"] for row in result.items if row["metric"] == "loss"}
    assert values == pytest.approx({str(i): t / n for i, (t, n) in enumerate(sums)})
    asked = {row["item"]: row["prompt_sha256"] for row in result.items}
    assert len(set(asked.values())) == len(rows) and all(len(digest) == 64 for digest in asked.values())


def test_standard_error_matches_a_bootstrap():
    rng = random.Random(2)
    sums = [(rng.gauss(2, 0.4) * n, n) for n in (rng.randint(5, 60) for _ in range(200))]
    mean, stderr = weighted_mean(sums)
    draws = [weighted_mean(rng.choices(sums, k=len(sums)))[0] for _ in range(2000)]
    centre = sum(draws) / len(draws)
    spread = math.sqrt(sum((draw - centre) ** 2 for draw in draws) / len(draws))
    assert mean == pytest.approx(centre, abs=3 * spread / math.sqrt(2000))
    assert stderr == pytest.approx(spread, rel=0.1)


def test_one_row_has_a_loss_and_no_standard_error(model, tmp_path):
    metrics = heldout_loss(model, write_rows(tmp_path / "heldout.parquet", some_rows(1)), batch_size=7).metrics
    assert metrics["loss"]["value"] > 0
    assert metrics["loss"]["stderr"] is None and metrics["perplexity"]["stderr"] is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "no rows"), ([([1, 2], [-100, -100])], "row 0 carries no loss"), ([([1, 2], [1])], "row 0 carries")],
)
def test_a_bad_data_set_is_reported(tmp_path, rows, message):
    path = write_rows(tmp_path / "heldout.parquet", rows)
    with pytest.raises(UserError, match=f"heldout.parquet.*{message}"):
        read_rows(path)


def test_a_file_that_is_not_a_table_is_reported(tmp_path):
    (tmp_path / "heldout.parquet").write_text("hello")
    with pytest.raises(UserError, match=r"heldout\.parquet cannot be read"):
        read_rows(tmp_path / "heldout.parquet")
