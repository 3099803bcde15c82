"""The split: whole groups on one side, exact sizes, and the same choice when rows are added."""

import random
from collections import Counter

import pytest

from loragrid.data.formats.conversation import Conversation
from loragrid.data.heldout_split import LINK_LEVELS, count_leaks, group_rows, split_rows
from loragrid.data.row_keys import normalise, row_keys
from loragrid.errors import UserError
from tests.fixtures.chat_data import sentence


def rows_of(pairs):
    """Keys of one-exchange conversations, numbered from 1."""
    return [
        row_keys(
            n,
            Conversation(
                [{"role": "user", "content": q}, {"role": "assistant", "content": a}], None, cut_after_last_reply=False
            ),
        )
        for n, (q, a) in enumerate(pairs, start=1)
    ]


def leaks(keys, split):
    return count_leaks([keys[i] for i in split.train], [keys[i] for i in split.heldout])


def random_rows(seed, *, rows=120):
    """Rows that share some prompts and answers, with differences in case and punctuation."""
    rng = random.Random(seed)
    answers = [sentence(rng, 6) for _ in range(rng.randint(rows // 3, rows))]
    prompts = [sentence(rng, 8) for _ in range(rng.randint(rows // 2, 2 * rows))]
    dress = [str, str.upper, lambda text: text + "!", lambda text: f"  {text.replace(' ', ', ')} "]
    pairs = [(rng.choice(dress)(rng.choice(prompts)), rng.choice(dress)(rng.choice(answers))) for _ in range(rows)]
    return pairs, rows_of(pairs)


@pytest.mark.parametrize("seed", range(40))
def test_no_answer_and_no_prompt_is_on_both_sides(seed):
    pairs, keys = random_rows(seed)
    asked = random.Random(seed).randint(1, 20)
    try:
        split = split_rows(keys, heldout_rows=asked, seed=seed)
    except UserError as error:
        assert "share them" in str(error)
        return
    sides = [{normalise(pairs[i][part]) for i in side} for part in (0, 1) for side in (split.train, split.heldout)]
    assert not sides[0] & sides[1] and not sides[2] & sides[3]
    assert leaks(keys, split) == {"answers": 0, "prompts": 0, "short_answers": 0}
    assert sorted(split.train + split.heldout) == list(range(len(keys)))
    held = {split.groups[i] for i in split.heldout}
    assert not held & {split.groups[i] for i in split.train}
    assert 0 < len(split.heldout) <= len(keys) // 2
    assert len(split.heldout) == asked or any("asked for" in note for note in split.notes)


def test_exact_size_for_single_rows_and_stable_when_rows_are_added():
    rng = random.Random(1)
    pairs = [(sentence(rng, 10), sentence(rng, 10)) for _ in range(600)]
    before, after = rows_of(pairs[:500]), rows_of(pairs)
    small, big = (split_rows(keys, heldout_rows=100, seed=5) for keys in (before, after))
    assert len(small.heldout) == len(big.heldout) == 100
    # One in six rows is new, so about one in six held-out rows gives way.
    assert len(set(small.heldout) & set(big.heldout)) >= 70
    assert split_rows(before, heldout_rows=100, seed=5) == small
    assert split_rows(before, heldout_rows=100, seed=6).heldout != small.heldout


def test_every_reply_of_a_conversation_links_rows():
    shared = "this very reply is given in two conversations"

    def talk(n, *replies):
        messages = []
        for i, reply in enumerate(replies):
            messages += [{"role": "user", "content": f"q{n} {i}"}, {"role": "assistant", "content": reply}]
        return row_keys(n, Conversation(messages, None, cut_after_last_reply=False))

    keys = [talk(1, shared, "one ending of its own"), talk(2, "a first reply here", shared.upper()), talk(3, "x", "y")]
    groups = group_rows(keys, level=LINK_LEVELS[0])
    assert groups[0] == groups[1] != groups[2]


def test_few_answers_are_split_by_answer():
    """500 conversations with 28 answers: the held-out set takes whole answers, and a note gives its inexact size."""
    rng = random.Random(3)
    answers = [sentence(rng, 12) for _ in range(28)]
    keys = rows_of([(sentence(rng, 9), answers[n % 28]) for n in range(500)])
    split = split_rows(keys, heldout_rows=50, seed=1)
    assert leaks(keys, split)["answers"] == 0
    assert len(set(split.groups)) == 28
    assert len(split.heldout) in range(45, 56)
    assert any(note.startswith("50 held-out rows were asked for") for note in split.notes)


def test_short_answers_are_ignored_only_if_they_chain_most_rows():
    rng = random.Random(4)
    keys = rows_of([(sentence(rng, 9), rng.choice(["Yes.", "No."])) for _ in range(200)])
    split = split_rows(keys, heldout_rows=20, seed=1)
    assert split.link_level == LINK_LEVELS[2] and len(split.heldout) == 20
    assert any("leaves too little" in note for note in split.notes)
    assert leaks(keys, split) == {"answers": 0, "prompts": 0, "short_answers": 20}
    mostly = rows_of([(sentence(rng, 9), "Yes." if n < 60 else sentence(rng, 9)) for n in range(200)])
    split = split_rows(mostly, heldout_rows=20, seed=1)
    assert split.link_level == LINK_LEVELS[0] and leaks(mostly, split)["short_answers"] == 0


@pytest.mark.parametrize("labels", [["yes", "no"], ["good", "bad", "neither"], [f"topic {n}" for n in range(20)]])
def test_labels_are_on_both_sides(labels):
    """As many rows of each label: whole labels would leave training without one, and the held-out set with that one alone."""
    rng = random.Random(7)
    pairs = [(sentence(rng, 9), labels[n % len(labels)]) for n in range(300)]
    split = split_rows(rows_of(pairs), heldout_rows=60, seed=1)
    assert len(split.heldout) == 60 and split.link_level == LINK_LEVELS[2]
    assert {pairs[i][1] for i in split.train} == set(labels)
    assert len({pairs[i][1] for i in split.heldout}) > 0.8 * len(labels)


def test_labels_leave_nearly_equal_prompts_together():
    rng = random.Random(8)
    prompts = [sentence(rng, 30) for _ in range(40)]
    keys = rows_of(
        [(f"{prompt}{end}", "yes" if n % 2 else "no") for n, prompt in enumerate(prompts) for end in ("", " x")]
    )
    split = split_rows(keys, heldout_rows=20, seed=1)
    assert len(split.heldout) == 20
    assert not {i // 2 for i in split.heldout} & {i // 2 for i in split.train}


def test_held_out_rows_that_would_all_give_one_long_answer_are_refused():
    rng = random.Random(9)
    labels = [f"the customer is {word} with the answer" for word in ("happy", "unhappy", "content")]
    keys = rows_of([(sentence(rng, 9), labels[n % 3]) for n in range(90)])
    with pytest.raises(
        UserError, match=r"30 of 30 held-out rows would give the same answer, .* fewer than 20 characters"
    ):
        split_rows(keys, heldout_rows=18, seed=1)


def test_a_split_that_cannot_be_made_is_a_user_error():
    rng = random.Random(5)
    keys = rows_of([(sentence(rng, 9), "the very same answer to everything") for _ in range(50)])
    with pytest.raises(UserError, match=r"5 of 50 rows cannot be held out .* form one group\. Fix: lower"):
        split_rows(keys, heldout_rows=5, seed=1)
    with pytest.raises(
        UserError, match=r"heldout\.rows: 26 is more than half of the 50 usable rows\. Fix: lower it to 25"
    ):
        split_rows(keys, heldout_rows=26, seed=1)
    with pytest.raises(UserError, match=r"heldout\.set: it has 1 usable row"):
        split_rows(keys[:1], heldout_rows=1, seed=1)


def test_prompts_that_differ_only_in_numbers_are_different():
    frame = (
        "Please write a running plan for a marathon in {} weeks with {} days a week, I am a beginner who likes hills"
    )
    rng = random.Random(6)
    pairs = [(frame.format(w, d), sentence(rng, 9)) for w in range(4, 24) for d in range(2, 7)]
    keys = rows_of(pairs)
    assert max(Counter(group_rows(keys, level=LINK_LEVELS[0])).values()) == 1
    alike = (
        "PLEASE write a running plan for a marathon, in 4 weeks with 2 days a week, I am a beginner who likes a hill"
    )
    again = rows_of([*pairs, (alike, "something else")])
    groups = group_rows(again, level=LINK_LEVELS[0])
    assert groups[-1] == groups[0] and len(set(groups)) == len(groups) - 1
    assert len(set(group_rows(again, level=LINK_LEVELS[1]))) == len(groups)


def test_normalise():
    assert normalise("  It's 5-a-side,\nGREAT! ") == "it s 5 a side great"
    assert normalise(" :-) ") == ":-)"
    assert normalise("Straße") == normalise("STRASSE")
