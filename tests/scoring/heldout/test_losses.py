import math
import random

import pytest

from loragrid.data.formats.conversation import Conversation
from loragrid.data.rendering.conversations import render_conversations
from loragrid.data.rendering.tokenizing import encode_chats
from loragrid.errors import UserError
from loragrid.models.chat_templates.probes import inspect_template
from loragrid.models.passes.padding_free import without_padding
from loragrid.models.passes.row_losses import row_losses
from loragrid.paths import ROOT
from loragrid.scoring.heldout.losses import loss_result, measure, read_rows, weighted_mean
from loragrid.scoring.heldout.target_texts import target_text


@pytest.fixture(scope="module", params=["toy_llama", "toy_gemma"])
def model(request):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(request.getfixturevalue(request.param)).eval()


@pytest.fixture(scope="module")
def tokenizer(toy_llama):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(toy_llama)


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


def heldout_loss(model, tokenizer, parquet):
    return loss_result(tokenizer, parquet, measure(model, parquet))


def test_neither_batch_nor_padding_changes_a_row(model):
    rows = some_rows()
    alone = [row_losses(model, [row])[0] for row in rows]
    together = row_losses(model, rows)
    assert [count for _, count in together] == [sum(label != -100 for label in labels) for _, labels in rows]
    assert [total for total, _ in together] == pytest.approx([total for total, _ in alone], rel=1e-5)


def test_losses_are_those_of_the_model_itself(model):
    import torch

    rows = some_rows(5)
    ours = row_losses(model, rows)
    for (ids, labels), (total, count) in zip(rows, ours, strict=True):
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
        assert total / count == pytest.approx(loss, rel=1e-5)


def test_a_large_vocabulary_gets_smaller_passes(model, monkeypatch):
    rows = some_rows(9)
    expected = row_losses(model, rows)
    monkeypatch.setattr("loragrid.models.passes.row_losses.LOGITS_PER_PASS", 1)
    assert [t for t, _ in row_losses(model, rows)] == pytest.approx([t for t, _ in expected], rel=1e-5)


def test_rows_side_by_side_have_the_losses_of_padded_ones(model):
    rows = some_rows()
    padded = row_losses(model, rows)
    with without_padding(model):
        assert model.config._attn_implementation == "per_sample"
        side_by_side = row_losses(model, rows)
    assert model.config._attn_implementation == "sdpa"
    assert [count for _, count in side_by_side] == [count for _, count in padded]
    assert [total for total, _ in side_by_side] == pytest.approx([total for total, _ in padded], rel=1e-6)
    assert side_by_side != padded  # another order of operations was taken indeed


def test_logits_are_computed_only_where_there_is_loss(model, monkeypatch):
    rows, seen = some_rows(), []
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[:2].numel()))
    with without_padding(model):
        seen.clear()
        row_losses(model, rows)
    hook.remove()
    assert sum(seen) == sum(label != -100 for _, labels in rows for label in labels[1:])


def test_a_row_longer_than_the_context_is_refused(model):
    too_long = ([7] * 600, [-100] + [7] * 599)
    with pytest.raises(ValueError, match="600 tokens is longer than the model's context of 512"):
        row_losses(model, [too_long])


def test_loss_is_weighted_by_tokens_and_every_row_is_an_item(model, tokenizer, tmp_path):
    rows = some_rows()
    result = heldout_loss(model, tokenizer, write_rows(tmp_path / "heldout.parquet", rows))
    sums = row_losses(model, rows)
    assert result.metrics["loss"]["value"] == pytest.approx(sum(t for t, _ in sums) / sum(n for _, n in sums))
    assert result.metrics["perplexity"]["value"] == pytest.approx(math.exp(result.metrics["loss"]["value"]))
    assert result.metrics["loss"]["higher_is_better"] is False
    values = {row["item"]: row["value"] for row in result.items if row["metric"] == "loss"}
    assert values == pytest.approx({str(i): t / n for i, (t, n) in enumerate(sums)})
    asked = {row["item"]: row["prompt_sha256"] for row in result.items if row["metric"] == "loss"}
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


def test_one_row_has_a_loss_and_no_standard_error(model, tokenizer, tmp_path):
    path = write_rows(tmp_path / "heldout.parquet", some_rows(1))
    metrics = heldout_loss(model, tokenizer, path).metrics
    assert metrics["loss"]["value"] > 0
    assert metrics["loss"]["stderr"] is None and metrics["perplexity"]["stderr"] is None


CHATS = [
    [("user", "Wie läuft's?"), ("assistant", "Gut – 5 km in 25′."), ("user", "More?"), ("assistant", " Yes. \n")],
    [("user", "Run"), ("assistant", "a slow 10 km, then rest " * 6)],
    [("user", "A plan?"), ("assistant", "日本語 and 🏃")],
]


def encoded(tokenizer, *, max_length_tokens=300):
    """`CHATS` as rows of token ids and labels."""
    template = inspect_template(tokenizer, model="toy")
    chats = [Conversation([{"role": role, "content": text} for role, text in chat], None, False) for chat in CHATS]
    texts = [text for rendered in render_conversations(template, chats) for text in rendered.chats]
    rows = encode_chats(template, texts, max_length_tokens=max_length_tokens, loss_on="assistant")
    return [(row.input_ids.tolist(), row.labels.tolist()) for row in rows]


@pytest.fixture(scope="module")
def other_tokenizer():
    """A tokenizer with words as tokens where the toy's has bytes."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ROOT / "resources/models/llama-s")


def test_the_target_text_is_that_of_the_replies_whatever_the_tokenizer(tokenizer, other_tokenizer):
    replies = ["".join(text for role, text in chat if role == "assistant") for chat in CHATS]
    for each in (tokenizer, other_tokenizer):
        assert [target_text(each, row) for row in encoded(each)] == replies
    lengths = [[len(ids) for ids, _ in encoded(each)] for each in (tokenizer, other_tokenizer)]
    assert all(one > other for one, other in zip(*lengths, strict=True))
    # Cut to equal numbers of tokens, the rows hold different texts.
    cut, other_cut = (
        [target_text(each, row) for row in encoded(each, max_length_tokens=40)] for each in (tokenizer, other_tokenizer)
    )
    assert cut[1] != other_cut[1] and replies[1].startswith(cut[1])


def test_a_tokenizer_that_drops_leading_blanks_loses_none_in_a_reply():
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<s>": 0, "▁ask": 1, "▁run": 2, "▁far": 3}, unk_token="<s>"))
    words.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>")
    assert tokenizer.decode([2, 3]) == "run far"
    row = ([0, 1, 2, 3, 1, 3, 0], [-100, -100, 2, 3, -100, 3, 0])
    assert target_text(tokenizer, row) == " run far far"


def test_bits_per_byte_compare_models_with_different_tokenizers(tokenizer, other_tokenizer, toy_llama, tmp_path):
    """One text under two tokenizers: the same rows, bytes and digests; a loss per token that means something else."""
    from transformers import AutoModelForCausalLM

    found = {}
    for name, each, folder in (
        ("toy", tokenizer, toy_llama),
        ("other", other_tokenizer, ROOT / "resources/models/llama-s"),
    ):
        model, rows = AutoModelForCausalLM.from_pretrained(folder).eval(), encoded(each)
        result = heldout_loss(model, each, write_rows(tmp_path / f"{name}.parquet", rows))
        sums = row_losses(model, rows)
        size = sum(len(text.encode()) for chat in CHATS for role, text in chat if role == "assistant")
        bits = sum(total for total, _ in sums) / math.log(2)
        metric = result.metrics["bits_per_byte"]
        assert metric["value"] == pytest.approx(bits / size) and metric["higher_is_better"] is False
        values = {row["item"]: row for row in result.items if row["metric"] == "bits_per_byte"}
        weights = {row["item"]: row for row in result.items if row["metric"] == "target_bytes"}
        mean = sum(values[item]["value"] * weights[item]["value"] for item in values) / size
        assert mean == pytest.approx(metric["value"]) and metric["stderr"] > 0
        found[name] = [(item, row["value"], row["prompt_sha256"]) for item, row in weights.items()]
    assert found["toy"] == found["other"]


def test_a_row_without_text_has_a_loss_and_no_bits_per_byte(tokenizer, toy_llama, tmp_path):
    from transformers import AutoModelForCausalLM

    end, word = tokenizer.eos_token_id, tokenizer("a")["input_ids"][0]
    rows = [([word, end], [-100, end]), ([word, word, end], [-100, word, end])]
    model = AutoModelForCausalLM.from_pretrained(toy_llama).eval()
    items = heldout_loss(model, tokenizer, write_rows(tmp_path / "rows.parquet", rows)).items
    assert [row["item"] for row in items if row["metric"] == "target_bytes"] == ["1"]
    empty = heldout_loss(model, tokenizer, write_rows(tmp_path / "rows.parquet", rows[:1]))
    assert set(empty.metrics) == {"loss", "perplexity"} and len(empty.items) == 2


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


def test_rows_of_one_conversation_are_items_of_their_own(tmp_path):
    import pandas

    path = tmp_path / "heldout.parquet"
    rows = {"row": [7, 7, 8, 7], "input_ids": [[1, 2]] * 4, "labels": [[-100, 2]] * 4}
    pandas.DataFrame(rows).to_parquet(path)
    assert read_rows(path)[0] == ["7", "7.2", "8", "7.3"]
