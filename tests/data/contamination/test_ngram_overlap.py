"""Contaminated items: what counts as shared, what is template, and what is too short to check."""

import random

import pytest

from loragrid.data.contamination.ngram_index import words_of
from loragrid.data.contamination.ngram_overlap import Items, Overlap, find_overlaps
from tests.fixtures.chat_data import sentence


def items_of(*texts: str) -> Items:
    return {str(number): (text,) for number, text in enumerate(texts)}


def overlap_with(items: Items, *rows: str) -> Overlap:
    found, count = find_overlaps({"task": items}, enumerate(rows, start=1))
    assert count == len(rows)
    return found["task"]


def test_of_a_hundred_items_exactly_the_ten_planted_ones_are_found() -> None:
    rng = random.Random(0)
    items = items_of(*(sentence(rng, 20) for _ in range(100)))
    rows = [sentence(rng, 60) for _ in range(600)]
    planted = rng.sample(range(100), 10)
    for place, number in enumerate(planted):
        rows[50 * place] = f"{sentence(rng, 9)}\n{items[str(number)][0]} {sentence(rng, 9)}"
    found = overlap_with(items, *rows)
    names = sorted(map(str, planted), key=int)
    assert found.items == 100 and found.contaminated == {8: names, 13: names}
    assert not found.too_short and not found.whole


def test_case_punctuation_and_forms_of_letters_do_not_hide_an_item() -> None:
    text = "Why do the three brave foxes — don't ask — run “far” over hills?"
    changed = "WHY do the three brave foxes (don’t ask) run *far*\nover hills"
    assert words_of(text) == words_of(changed)
    assert words_of("ﬁve １２ snake_case") == ["five", "12", "snake", "case"]
    found = overlap_with(items_of(text), f"so, {changed}, they said")
    assert found.contaminated == {8: ["0"], 13: ["0"]}
    assert found.examples[0].row == 1
    assert found.examples[0].ngram == "why do the three brave foxes don t ask run far over hills"


@pytest.mark.parametrize(("words", "expected"), [(7, []), (8, ["8"]), (12, ["8"]), (13, ["8", "13"])])
def test_a_run_of_eight_and_of_thirteen_words_counts_and_one_less_does_not(words: int, expected: list[str]) -> None:
    text = sentence(random.Random(1), 30)
    found = overlap_with(items_of(text), f"before {' '.join(text.split()[5 : 5 + words])} after")
    assert [str(n) for n, names in found.contaminated.items() if names] == sorted(expected, key=int, reverse=True)


def test_a_run_of_words_that_two_rows_share_between_them_does_not_count() -> None:
    text = sentence(random.Random(2), 12)
    halves = text.split()[:6], text.split()[6:]
    assert overlap_with(items_of(text), *(" ".join(half) for half in halves)).contaminated[8] == []


def test_short_items_are_compared_whole_and_shorter_ones_are_counted_as_unchecked() -> None:
    texts = "what color is the flag red", "which food is it", "what color is the flag blue"
    found = overlap_with(items_of(*texts), "Asked what color is the flag? Red, she said. Which food is it?")
    assert found.contaminated == {8: ["0"], 13: ["0"]}
    assert found.too_short == ["1"] and found.whole == ["0", "2"] and found.items == 3


def test_any_of_an_item_s_texts_counts() -> None:
    items = {"0": ("one two three four five yes", "one two three four five no")}
    assert overlap_with(items, "one two three four five no").contaminated[8] == ["0"]


def templated(rng: random.Random, count: int) -> list[str]:
    return [f"Write a plan of training for the runner who asks: {sentence(rng, 10)}" for _ in range(count)]


def test_what_two_items_of_a_task_share_is_its_template_and_does_not_count() -> None:
    rng = random.Random(3)
    texts = templated(rng, 40)
    rows = [f"{text} but {sentence(rng, 5)}" for text in templated(rng, 200)]
    assert overlap_with(items_of(*texts), *rows).contaminated == {8: [], 13: []}
    rows[7] = texts[5]
    assert overlap_with(items_of(*texts), *rows).contaminated == {8: ["5"], 13: ["5"]}
    # The template of one task is no template of another.
    tasks = {"templated": items_of(*texts), "other": items_of(texts[0])}
    found, _ = find_overlaps(tasks, [(1, rows[0])])
    assert found["other"].contaminated[8] == ["0"] and found["templated"].contaminated[8] == []


def test_an_item_without_eight_words_of_its_own_is_compared_as_a_whole() -> None:
    # Any eight words of the first item are in the second or in the third.
    texts = "a b c d e f g h i j k l m n", "a b c d e f g h i j k l X n", "Y b c d e f g h i j k l m n"
    items = items_of(*texts)
    found = overlap_with(items, texts[0])
    assert found.whole == ["0"] and found.contaminated == {8: ["0"], 13: ["0"]}
    assert overlap_with(items, *texts[1:]).contaminated == {8: ["1", "2"], 13: ["1", "2"]}


def test_items_of_one_text_count_once_and_a_passage_with_several_questions_only_with_one_of_them() -> None:
    rng = random.Random(4)
    passage, text = sentence(rng, 30), sentence(rng, 20)
    questions = [f"{passage} {sentence(rng, 6)}" for _ in range(3)]
    items = items_of(*questions, text, text)
    assert overlap_with(items, passage, text).contaminated == {8: ["3", "4"], 13: ["3", "4"]}
    assert overlap_with(items, questions[1]).contaminated[8] == ["1"]


def test_nothing_to_look_for_and_nothing_to_look_in() -> None:
    found, count = find_overlaps({"empty": {}, "short": items_of("one two")}, [(1, "one two three")])
    assert count == 1 and found["empty"].items == 0 and found["short"].too_short == ["0"]
    assert overlap_with(items_of(sentence(random.Random(5), 20))).contaminated == {8: [], 13: []}
    assert overlap_with(items_of(sentence(random.Random(5), 20)), "", "  ").contaminated == {8: [], 13: []}
