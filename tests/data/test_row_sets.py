"""Rows of a set: filters, duplicates, and nested samples in the shares of a mix."""

import itertools
import random

import pytest

from loragrid.data.heldout_rows import NEAR_PROMPT, SAME_ANSWER, SAME_PROMPT, choose_heldout
from loragrid.data.heldout_split import LINK_LEVELS
from loragrid.data.reading.sources import Source
from loragrid.data.row_sets import Part, RowSet, combine, mix_counts, sample_keys
from loragrid.data.source_scan import SourceScan
from loragrid.errors import UserError
from loragrid.study.sections import Filters
from tests.data.test_heldout_split import rows_of
from tests.fixtures.chat_data import sentence

NO_FILTER = {"min_characters": 0, "max_characters": None, "min_turns": 0, "max_turns": None, "near_duplicates": "keep"}


def row_set(name, pairs):
    """The set of one source that holds these one-exchange conversations."""
    keys = rows_of(pairs)
    scan = SourceScan(Source(name, {}, list), "sharegpt", rows_read=len(keys), last_row=len(keys), keys=keys)
    return RowSet(name, [Part(name, 1.0, scan, 0, keys)])


def numbers(rows):
    return [part.offset + key.row for part in rows.parts for key in part.keys]


def test_every_filter_counts_its_rows():
    rows = row_set("chat", [("q", "a"), ("question", "answer"), ("q" * 50, "a" * 50), ("what", "that")])
    rows.drop_unfit(Filters(**NO_FILTER | {"min_characters": 8, "max_characters": 99}))
    assert numbers(rows) == [2, 4]
    assert rows.filtered.as_dict() == {
        "fewer than 8 characters": {"count": 1, "first_rows": [1]},
        "more than 99 characters": {"count": 1, "first_rows": [3]},
    }
    rows.drop_unfit(Filters(**NO_FILTER | {"min_turns": 2, "max_turns": 2}))
    assert numbers(rows) == [2, 4]
    short, long = (row_set("chat", [("a", "b")]) for _ in range(2))
    short.drop_unfit(Filters(**NO_FILTER | {"min_turns": 3}))
    long.drop_unfit(Filters(**NO_FILTER | {"max_turns": 1}))
    assert str(short.filtered) == "1 fewer than 3 messages (row 1)"
    assert str(long.filtered) == "1 more than 1 messages (row 1)"


def test_the_first_of_equal_rows_is_kept_also_in_another_source():
    one = row_set("one", [(f"question {n % 30}", f"an answer {n % 30}") for n in range(40)])
    one.drop_duplicates()
    assert numbers(one) == list(range(1, 31)) and one.duplicates.as_dict()["first_rows"] == [31, 32, 33, 34, 35]
    other = row_set("other", [("question 3", "an answer 3"), ("question 99", "an answer 99")])
    both = combine("both", [one, other], [1, 1])
    both.drop_duplicates()
    assert numbers(both) == [*range(1, 31), 42]
    assert both.duplicates.count == 11 and one.duplicates.count == 10


def test_the_first_of_nearly_equal_prompts_is_kept():
    rng = random.Random(1)
    prompts = [sentence(rng, 30) for _ in range(5)]
    near = prompts[2] + " please"
    rows = row_set("chat", [(prompt, sentence(rng, 5)) for prompt in [*prompts, near, prompts[4].upper()]])
    rows.drop_near_duplicates()
    assert numbers(rows) == [1, 2, 3, 4, 5]
    assert rows.near_duplicates.as_dict() == {"count": 2, "first_rows": [6, 7]}


@pytest.mark.parametrize("seed", range(20))
def test_a_mix_keeps_its_shares_and_larger_mixes_only_add_rows(seed):
    rng = random.Random(seed)
    parts = rng.randint(1, 5)
    weights = [rng.choice([0.1, 1, 2, 3.3, 10]) for _ in range(parts)]
    shares = [weight / sum(weights) for weight in weights]
    sizes = [rng.randint(5, 300) for _ in range(parts)]
    available, largest = mix_counts(sizes, shares, rows=None)
    assert sum(largest) == available
    # The mix ends where a part has no row left.
    assert any(count == size for count, size in zip(largest, sizes, strict=True))
    before = [0] * parts
    for rows in range(available + 1):
        _, counts = mix_counts(sizes, shares, rows=rows)
        assert sum(counts) == rows
        assert all(less <= more for less, more in zip(before, counts, strict=True))
        assert all(abs(count - share * rows) <= parts / 2 for count, share in zip(counts, shares, strict=True))
        before = counts
    assert mix_counts(sizes, shares, rows=available + 5)[1] == largest


def test_a_mix_has_the_proportions_of_its_weights():
    assert mix_counts([1000, 1000], [0.7, 0.3], rows=10) == (1429, [7, 3])
    assert mix_counts([1000, 1000], [0.7, 0.3], rows=None) == (1429, [1000, 429])
    assert mix_counts([50, 20, 90], [1 / 3] * 3, rows=None) == (60, [20, 20, 20])
    assert mix_counts([12], [1.0], rows=None) == (12, [12])


def test_samples_are_nested_seeded_and_stable():
    keys = rows_of([(f"question {n}", f"an answer {n}") for n in range(60)])
    chosen = [sample_keys(keys, rows=rows, seed=1) for rows in (10, 20, 40)]
    for small, large in itertools.pairwise(chosen):
        assert {key.row for key in small} < {key.row for key in large}
    assert [len(sample) for sample in chosen] == [10, 20, 40]
    assert [key.row for key in chosen[1]] == sorted(key.row for key in chosen[1])
    assert chosen[0] == sample_keys(keys, rows=10, seed=1) != sample_keys(keys, rows=10, seed=2)
    assert sample_keys(keys, rows=60, seed=1) == sample_keys(keys, rows=99, seed=1) == keys
    fewer = sample_keys(keys[:50], rows=10, seed=1)
    assert len({key.row for key in fewer} & {key.row for key in chosen[0]}) >= 6


def test_more_rows_than_there_are_is_one_line():
    rows = row_set("chat", [(f"question {n}", f"an answer {n}") for n in range(12)])
    with pytest.raises(
        UserError, match=r"^data\.chat\.rows: more than the 12 rows .*\(13\)\. Fix: lower it to 12"
    ) as one:
        rows.sample(13, seed=1)
    other = row_set("code", [(f"command {n}", f"a program {n}") for n in range(2)])
    both = combine("both", [rows, other], [3, 1])
    with pytest.raises(UserError, match=r"^data\.both\.rows: more than the \d+ rows .*: code has 2 \(11\)") as two:
        both.sample(11, seed=1)
    assert "\n" not in str(one.value) + str(two.value)


def test_rows_like_held_out_ones_leave_every_training_set():
    rng = random.Random(2)
    pairs = [(sentence(rng, 20), sentence(rng, 10)) for _ in range(60)]
    heldout = choose_heldout(row_set("chat", pairs), rows=6, seed=1)
    assert heldout.level == LINK_LEVELS[0] and len(heldout.keys) == 6
    prompt, answer = pairs[heldout.keys[0].row - 1]
    foreign = row_set(
        "foreign",
        [
            (sentence(rng, 20), sentence(rng, 10)),
            (prompt, answer),
            (prompt.upper() + "!", sentence(rng, 10)),
            (prompt + " now", sentence(rng, 10)),
            (sentence(rng, 20), f"{answer}."),
            (pairs[heldout.split.train[0]][0], sentence(rng, 10)),
        ],
    )
    heldout.remove_from(foreign)
    assert numbers(foreign) == [1, 6]
    assert foreign.held_out.as_dict() == {"count": 1, "first_rows": [2]}
    assert {reason: rows["first_rows"] for reason, rows in foreign.like_heldout.as_dict().items()} == {
        SAME_PROMPT: [3],
        NEAR_PROMPT: [4],
        SAME_ANSWER: [5],
    }
    same = row_set("chat", pairs)
    heldout.remove_from(same)
    assert len(same.keys) == 54 and same.held_out.count == 6 and same.like_heldout.total == 0


def test_short_answers_link_as_they_do_in_the_split():
    rng = random.Random(3)
    foreign = [(sentence(rng, 9), "Yes."), (sentence(rng, 9), sentence(rng, 9))]
    chained = [(sentence(rng, 9), rng.choice(["Yes.", "No."])) for _ in range(60)]
    heldout = choose_heldout(row_set("chat", chained), rows=10, seed=1)
    assert heldout.split.link_level == LINK_LEVELS[2]
    rows = row_set("foreign", foreign)
    heldout.remove_from(rows)
    assert len(rows.keys) == 2
    mixed = [*chained[:10], *((sentence(rng, 9), sentence(rng, 9)) for _ in range(50))]
    candidates = row_set("chat", mixed)
    for seed in range(30):
        heldout = choose_heldout(candidates, rows=20, seed=seed)
        rows = row_set("foreign", foreign)
        heldout.remove_from(rows)
        yes = any(mixed[key.row - 1][1] == "Yes." for key in heldout.keys)
        assert len(rows.keys) == 2 - yes and heldout.split.link_level == LINK_LEVELS[0]


def test_a_set_of_held_out_rows_alone_is_one_line():
    rng = random.Random(4)
    pairs = [(sentence(rng, 9), sentence(rng, 9)) for _ in range(20)]
    heldout = choose_heldout(row_set("chat", pairs), rows=5, seed=1)
    only = row_set("only", [pairs[position] for position in heldout.split.heldout])
    with pytest.raises(UserError, match=r"^data\.only: every row is held out .*\(5 rows\)\. Fix: lower heldout\.rows"):
        heldout.remove_from(only)
