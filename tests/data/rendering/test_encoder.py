"""Rows of long conversations, of replies marked not to train on, and of plain text."""

from dataclasses import replace

import pytest

from loragrid.data.rendering import locating
from loragrid.data.rendering.encoder import Encoder
from loragrid.data.rendering.examples import example_segments
from loragrid.data.rendering.tokenizing import NO_LOSS
from loragrid.models.chat_templates.probes import inspect_template
from tests.fixtures.chat_templates import CHATML, GEMMA_LIKE, LLAMA_LIKE, make_tokenizer, talk

TEMPLATE = inspect_template(make_tokenizer(CHATML), model="m")
LONG = talk(
    ("system", "Be brief."),
    ("user", "one?"),
    ("assistant", "reply one"),
    ("user", "two?"),
    ("assistant", "call two"),
    ("tool", "2"),
    ("assistant", "reply two"),
    ("user", "three?"),
    ("assistant", "reply three"),
)


def encode(conversation, *, limit=10_000, loss_on="assistant", long_rows="cut", template=TEMPLATE):
    return Encoder(template, limit, loss_on, long_rows).encode([conversation])[0]


def trained(encoded, template=TEMPLATE):
    return [template.tokenizer.decode(row.labels[row.labels != NO_LOSS]) for _, row in encoded.rows]


def test_windows_begin_at_user_turns_and_train_each_reply_once():
    whole = encode(LONG)
    limit = whole.rows[0][1].full_length - 1
    found = encode(LONG, limit=limit, long_rows="window")
    assert trained(found) == ["reply one</im>call two</im>reply two</im>", "reply three</im>"]
    opening = "<im>system\nBe brief.</im>\n<im>user\n"
    assert [chat.text.startswith(opening) for chat, _ in found.rows] == [True, True]
    assert all(row.full_length <= limit for _, row in found.rows) and found.facts == {"windows"}
    # The second exchange alone is too long, so its window is cut.
    single = encode(LONG, limit=70, long_rows="window")
    assert trained(single) == ["reply one</im>", "call two</im>", "reply three</im>"]
    assert encode(LONG, limit=limit, long_rows="drop").reason == "longer than max_length_tokens"
    assert trained(encode(LONG, limit=limit)) == trained(whole)
    assert trained(encode(LONG, limit=limit, loss_on="last_reply", long_rows="window")) == ["reply three</im>"]


@pytest.mark.parametrize("loss_on", ["assistant", "last_reply", "all"])
def test_replies_that_are_marked_untrained_carry_no_loss(loss_on):
    marked = replace(LONG, untrained=frozenset({2}))
    (text,) = trained(encode(marked, loss_on=loss_on))
    assert "reply one" not in text and "reply three</im>" in text
    assert ("two?" in text) == (loss_on == "all") and ("reply two" in text) == (loss_on != "last_reply")
    assert encode(replace(LONG, untrained=frozenset({2, 4, 6, 8})), loss_on=loss_on).reason == (
        "every reply is marked not to train on"
    )
    last = encode(replace(LONG, untrained=frozenset({8})), loss_on=loss_on)
    expected = {"last_reply": "the last reply is marked not to train on"}
    assert last.reason == expected.get(loss_on)


def test_a_reply_that_a_template_joins_with_a_marked_one_is_counted():
    template = inspect_template(make_tokenizer(GEMMA_LIKE), model="m")
    replies = [("user", "one?"), ("assistant", "a"), ("user", "two?"), ("assistant", "b"), ("assistant", "c")]
    marked = replace(talk(*replies), untrained=frozenset({3}))
    joined = encode(marked, template=template)
    assert "joined_with_marked" in joined.facts and "b" not in "".join(trained(joined, template))
    assert "joined_with_marked" not in encode(marked).facts and "c</im>" in "".join(trained(encode(marked)))


def test_plain_text_is_trained_whole_with_an_end():
    tokenizer = make_tokenizer(LLAMA_LIKE)
    tokenizer.eos_token = "<|eot|>"
    template = inspect_template(tokenizer, model="m")
    text = replace(talk(("assistant", " Some text <turn>.\n")), notes=("plain_text",))
    encoded = encode(text, template=template)
    assert trained(encoded, template) == [" Some text <turn>.\n<|eot|>"]
    ids = encoded.rows[0][1].input_ids.tolist()
    assert ids[0] == tokenizer.bos_token_id and tokenizer.convert_tokens_to_ids("<turn>") not in ids
    assert encoded.facts == {"control_tokens"}


def test_examples_show_where_the_loss_is_and_stay_short():
    (_, row), *_ = encode(LONG).rows
    segments = example_segments(TEMPLATE.tokenizer, row)
    assert [text for text, loss in segments if loss] == trained_parts(LONG)
    assert "".join(text for text, _ in segments) == TEMPLATE.tokenizer.decode(row.input_ids)
    turns = [("user" if n % 2 == 0 else "assistant", f"{n} " + "word " * 400) for n in range(40)]
    (_, row), *_ = encode(talk(*turns)).rows
    segments = example_segments(TEMPLATE.tokenizer, row)
    assert 1_000 < sum(len(text) for text, _ in segments) <= 1_500 + len(segments)
    assert segments[1][0].startswith("1 word") and segments[1][1] and " … " in segments[1][0]


def trained_parts(conversation):
    return [m["content"] + "</im>" for m in conversation.messages if m["role"] == "assistant"]


@pytest.mark.parametrize("max_length", [100, 4_000])
@pytest.mark.parametrize("long_rows", ["cut", "window", "drop"])
@pytest.mark.parametrize("loss_on", ["assistant", "last_reply", "all"])
def test_a_very_long_conversation_gives_the_same_rows_when_only_its_kept_replies_are_located(
    max_length: int, long_rows: str, loss_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rendering all turns before each reply takes the square of their number."""
    turns = [(("user", "assistant")[i % 2], f"{i} </im> " + "word " * (i % 5)) for i in range(80)]
    chat = replace(talk(*turns), untrained=frozenset({3, 71}))
    encoder = Encoder(TEMPLATE, max_length, loss_on, long_rows)
    (whole,) = encoder.encode([chat])
    rendered, render = [], locating.render

    def counting(template, chats, **options):
        rendered.append(len(chats))
        return render(template, chats, **options)

    monkeypatch.setattr(locating, "MOST_REPLIES", 2)
    monkeypatch.setattr(locating, "render", counting)
    (first,) = encoder.encode([chat])
    assert rendered[0] < 40 or (max_length == 4_000 and loss_on != "last_reply")
    assert (first.reason, first.facts, len(first.rows)) == (whole.reason, whole.facts, len(whole.rows))
    for (_, row), (_, expected) in zip(first.rows, whole.rows, strict=True):
        assert row.input_ids.tolist() == expected.input_ids.tolist()
        assert row.labels.tolist() == expected.labels.tolist()
        assert row.full_length == expected.full_length
