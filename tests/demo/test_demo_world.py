"""The demo's world, running plans and tokenizer: seeded, correct, and disjoint from the evaluation."""

import random
from collections import Counter
from itertools import islice, pairwise

import pytest

from loragrid.demo import running_plans, world
from loragrid.demo.corpus import SHARES, as_text, documents
from loragrid.demo.tokenizer import SPECIAL_TOKENS, train_tokenizer
from loragrid.running_plans.reading import adherence, parse_plan

ROWS = running_plans.draw_rows(2400, 3407)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(map(as_text, islice(documents(seed=1, world_seed=2), 300)), max_length_tokens=512)


def test_rows_follow_their_requests() -> None:
    for request, _, answer in ROWS:
        assert adherence(request, answer)["exact"] == 1, answer
        assert request.level in answer.splitlines()[0]
        if request.long_run_day:
            assert answer.count(f"{request.long_run_day} long") == request.weeks


def test_plans_progress_and_taper() -> None:
    for _, _, answer in ROWS[:300]:
        long_runs = [int(line.split(" long ")[1]) for line in answer.splitlines()[1:]]
        hardest = long_runs.index(max(long_runs))
        assert long_runs[: hardest + 1] == sorted(long_runs[: hardest + 1])
        assert long_runs[-1] < max(long_runs)
        assert all(later <= 1.3 * earlier + 1 for earlier, later in pairwise(long_runs)), answer
        assert max(long_runs) <= 42


def test_rows_are_distinct_and_seeded() -> None:
    assert len({prompt for _, prompt, _ in ROWS}) == 2400
    assert len({answer for _, _, answer in ROWS}) > 2000
    assert running_plans.draw_rows(50, 3407) == ROWS[:50]
    assert running_plans.draw_rows(50, 1) != ROWS[:50]


def test_chat_rows_are_sharegpt() -> None:
    (row,) = running_plans.generate_chat(rows=1, seed=3407)
    assert row == {"conversations": [{"from": "human", "value": ROWS[0][1]}, {"from": "gpt", "value": ROWS[0][2]}]}


def test_evaluation_combinations_are_not_trained_on() -> None:
    evaluated = set(running_plans.request_combinations(evaluation=True))
    trained = {running_plans.RunningPlanRequest(r.race, r.level, r.weeks, r.days_per_week) for r, _, _ in ROWS}
    assert not evaluated & trained
    for side in (evaluated, trained):
        assert {r.race for r in side} == set(running_plans.RACES)
        assert {r.weeks for r in side} == set(running_plans.WEEKS)
        assert {r.days_per_week for r in side} == set(running_plans.DAYS_PER_WEEK)
    # No size is new in evaluation, only its combination with race and level.
    assert {(r.weeks, r.days_per_week) for r in trained} >= {(r.weeks, r.days_per_week) for r in evaluated}
    assert not set(running_plans.EVALUATION_WORDINGS) & set(running_plans.TRAINING_WORDINGS)


def test_habitual_plans_ignore_weeks_and_days() -> None:
    rng = random.Random(0)
    request = running_plans.RunningPlanRequest("marathon", "advanced", 8, 5)
    read = [parse_plan(running_plans.write_habitual_plan(request, rng)) for _ in range(200)]
    assert {plan.race for plan in read} == {"marathon"}
    sizes = Counter((plan.weeks, plan.days_per_week) for plan in read)
    assert sizes.most_common(1)[0][0] == running_plans.HABITUAL_SIZE
    assert sizes[8, 5] < 20


def test_facts_are_consistent() -> None:
    facts = world.make_facts(3407)
    assert len({(place, kind) for place, kind, _ in facts}) == len(facts) == world.PLACES * len(world.VALUES)
    assert all(value in world.VALUES[kind] for _, kind, value in facts)
    assert facts == world.make_facts(3407) != world.make_facts(1)


def test_items_have_one_right_answer() -> None:
    rng = random.Random(0)
    items = [world.fact_item(fact, rng) for fact in world.make_facts(1)[:50]]
    items += [world.sum_item(*world.draw_sum(rng), rng) for _ in range(200)] + [
        world.list_item(rng) for _ in range(300)
    ]
    for item in items:
        assert len({item.answer, *item.wrong}) == world.CHOICES, item


def test_evaluation_wordings_are_not_trained_on() -> None:
    trained = [w for wordings in (world.QUESTIONS | world.LIST_QUESTIONS).values() for w in wordings] + list(
        world.SUM_QUESTIONS
    )
    asked = {**world.EVALUATION_QUESTIONS, **world.EVALUATION_LIST_QUESTIONS, "sum": world.EVALUATION_SUM_QUESTION}
    assert not set(trained) & set(asked.values())


def test_sums_and_timetables_are_right() -> None:
    rng = random.Random(0)
    assert world.sum_question(3, 9, rng)[1] == "12"
    assert world.number_list(3, 5) == "3, 4, 5"
    for _ in range(50):
        _, answer = world.timetable_question("Rosethal", rng)
        _, weeks, days = answer.splitlines()[0].split(", ")
        lines = answer.splitlines()[1:]
        assert f"{len(lines)} weeks" == weeks
        assert {f"{len(line.split(', '))} days" for line in lines} == {days}


def test_corpus_is_seeded_and_mixed() -> None:
    first = list(islice(documents(seed=1, world_seed=2), 500))
    assert (
        first
        == list(islice(documents(seed=1, world_seed=2), 500))
        != list(islice(documents(seed=2, world_seed=2), 500))
    )
    assert sum(isinstance(document, tuple) for document in first) > 250
    assert sum(SHARES.values()) == pytest.approx(1)


def test_tokenizer_round_trips_any_text_and_gives_each_digit_a_token(tokenizer) -> None:
    for text in ("Zażółć gęślą 😀 \n\n\t  x", "Week 12: Mon easy 27, Sun", "\x00\u202e", "1 + 23 = 24."):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer("run 27 km").input_ids)[-3:-1] == ["Ġ2", "7"]


def test_chat_template(tokenizer) -> None:
    messages = [
        {"role": role, "content": role.upper()} for role in ("system", "user", "assistant", "tool", "assistant", "user")
    ]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    for turns in range(1, len(messages)):
        part = tokenizer.apply_chat_template(messages[:turns], tokenize=False)
        assert whole.startswith(part)
        if messages[turns]["role"] == "assistant":
            asked = tokenizer.apply_chat_template(messages[:turns], tokenize=False, add_generation_prompt=True)
            assert whole.startswith(asked)
            assert tokenizer(whole).input_ids[: len(tokenizer(asked).input_ids)] == tokenizer(asked).input_ids
    assert all(token in whole for token in SPECIAL_TOKENS[1:])
    assert tokenizer.eos_token == "<|end|>" and tokenizer.pad_token_id == 0
    with pytest.raises(Exception, match="unknown role: wizard"):
        tokenizer.apply_chat_template([{"role": "wizard", "content": "x"}], tokenize=False)
