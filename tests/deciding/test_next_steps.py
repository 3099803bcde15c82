"""Open questions, the options that close them, their costs, and what is proposed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loragrid.comparing.trade_off import LOSS_NOT_EXCLUDED
from loragrid.deciding.compared_results import ComparedResults
from loragrid.deciding.further_values import next_value
from loragrid.deciding.next_steps import NextSteps, find_next_steps
from loragrid.deciding.options import GRID_SEEDS, ITEMS, SEEDS, SEEDS_AND_ITEMS, TOKENS, VALUE
from loragrid.deciding.proposal import LIKELY, propose
from loragrid.deciding.questions import AXIS, BEYOND, GAIN, LONGER, RETENTION
from tests.fixtures.drawn_studies import TASK_SECONDS, TRAIN_SECONDS, Truth, carried_out, closes

RATE = "learning_rate"
LOW, HIGH = ((RATE, "0.003"),), ((RATE, "0.03"),)
RANK_4, RANK_64 = (("rank", "4"),), (("rank", "64"),)
ARMS = ((), LOW, HIGH, RANK_4, RANK_64)
# The base case improves on its base; a high rate is far worse; the others are as good as the base case.
GAINS = {(): 0.3, LOW: 0.3, HIGH: 0.0, RANK_4: 0.3, RANK_64: 0.3}
Draw = Callable[..., ComparedResults]


def way_of(steps: NextSteps, name: str):
    """The cheapest way to close one question."""
    return next(option for question, option in steps.ways if question.name == name)


def test_what_is_proved_or_within_the_margin_is_not_open(drawn: Draw) -> None:
    truth = {"gains": GAINS, "sd": 0.005, "most": 4000}
    steps = find_next_steps(drawn(truth, seed=[1, 2, 3], scoring={"limit": 4000}))
    # Thousands of items and steady seeds decide everything: one difference, and three that do not matter.
    assert [question.name for question, _ in steps.ways] == []
    assert steps.options == [] and propose(steps.maker, steps.ways, None) is None


def test_one_seed_leaves_every_question_open_and_the_second_comes_first(drawn: Draw) -> None:
    steps = find_next_steps(drawn({"gains": GAINS}, seed=[1]))
    assert {question.kind for question, _ in steps.ways} == {AXIS, GAIN}
    assert len(steps.ways) == 5 and steps.forecast.beliefs.assumed["running_plan"]
    for _, option in steps.ways:
        assert option is None or all(
            steps.forecast.seeds_after(arm, option.change) > 1 for arm in option.change.arm_seeds
        )
    assert way_of(steps, f"axis:{RATE}:0.03").chances[f"axis:{RATE}:0.03"] > 0.8


def test_options_add_seeds_items_or_both_and_cost_what_the_study_measured(drawn: Draw) -> None:
    compared = drawn({"gains": GAINS | {HIGH: 0.15}, "sd": 0.005, "seed": 2}, scoring={"limit": 50}, seed=[1, 2, 3])
    steps = find_next_steps(compared)
    assert {SEEDS, GRID_SEEDS, ITEMS, SEEDS_AND_ITEMS} <= {option.kind for option in steps.options}
    for option in steps.options:
        new = option.runs * (TRAIN_SECONDS + TASK_SECONDS) / 3600
        if option.change.items:
            # All 16 subjects are scored again on twice the items, and new runs on twice as many.
            (items,) = option.change.items.values()
            more = items / 50
            new = option.runs * (TRAIN_SECONDS + more * TASK_SECONDS) / 3600 + 16 * more * TASK_SECONDS / 3600
        assert option.hours == pytest.approx(new)
        assert option.expected_closed == pytest.approx(sum(option.chances.values()))
    grid = next(option for option in steps.options if option.kind == GRID_SEEDS)
    assert grid.runs == len(ARMS) * len(grid.change.grid_seeds) and grid.change.grid_seeds[0] == 4
    assert steps.costs.device == "made-up card"


def test_seeds_of_the_base_case_are_shared_by_its_comparisons(drawn: Draw) -> None:
    compared = drawn({"gains": GAINS}, grid={"base_case_seeds": [5, 6]})
    steps = find_next_steps(compared)
    for option in steps.options:
        if option.kind == SEEDS and RANK_64 in option.change.arm_seeds:
            # The base case has four already: two more for the arm come first, under the same seeds.
            assert option.change.arm_seeds[RANK_64][:2] in ((5,), (5, 6))
            assert () not in option.change.arm_seeds or len(option.change.arm_seeds[RANK_64]) > 2


def test_the_cheapest_way_reaches_the_power_where_one_does(drawn: Draw) -> None:
    steps = find_next_steps(drawn({"gains": GAINS, "seed": 4}))
    for question, way in steps.ways:
        able = [option for option in steps.options if option.chances.get(question.name, 0) >= 0.8]
        if able:
            assert way.hours == min(option.hours for option in able)
        else:
            assert way is None or way.chances[question.name] >= LIKELY
    ratios = [way.hours_per_closed for _, way in steps.ways if way is not None]
    assert ratios == sorted(ratios) and [way for _, way in steps.ways][len(ratios) :] == [None] * (
        len(steps.ways) - len(ratios)
    )


def test_a_budget_buys_as_much_as_fits(drawn: Draw) -> None:
    steps = find_next_steps(drawn({"gains": GAINS, "seed": 4}))
    best = propose(steps.maker, steps.ways, None)
    assert best.hours_per_closed == min(way.hours_per_closed for _, way in steps.ways if way is not None)
    small, large = (propose(steps.maker, steps.ways, hours) for hours in (best.hours, 50 * best.hours))
    assert small.hours <= best.hours and large.hours <= 50 * best.hours
    assert large.expected_closed > small.expected_closed
    assert propose(steps.maker, steps.ways, best.hours / 1000) is None


def test_retention_is_asked_where_a_loss_is_not_excluded(drawn: Draw) -> None:
    compared = drawn({"gains": GAINS, "losses": dict.fromkeys(ARMS, 0.02)}, scoring={"retention": ["world_facts"]})
    waiting = [row["run"] for row in compared.summary["trade_offs"] if row["ship_reason"]["code"] == LOSS_NOT_EXCLUDED]
    asked = {question.about["run"] for question, _ in find_next_steps(compared).ways if question.kind == RETENTION}
    assert asked == set(waiting) and asked


def test_the_best_value_at_the_edge_of_an_axis_that_matters(drawn: Draw) -> None:
    rising = GAINS | {LOW: 0.0, HIGH: 0.45}
    steps = find_next_steps(drawn({"gains": rising, "sd": 0.01}, seed=[1, 2, 3], scoring={"limit": 1600}))
    (beyond,) = [question for question, _ in steps.ways if question.kind == BEYOND]
    assert beyond.about == {"axis": RATE, "value": "0.09", "best": "0.03"} and beyond.expected > 0.1
    option = way_of(steps, beyond.name)
    assert option.kind == VALUE and option.change.values == ((RATE, 0.09),) and option.runs == 3
    # Ranks do not differ, so there is no telling which of them is best.
    flat = find_next_steps(drawn({"gains": GAINS}))
    assert not [question for question, _ in flat.ways if question.kind == BEYOND and question.about["axis"] == "rank"]


@pytest.mark.parametrize(
    "before, edge, wanted",
    [
        (0.01, 0.1, 1.0),
        (0.01, 0.001, 0.0001),
        (16, 64, 256),
        (16, 4, 1),
        (4, 1, None),
        ([2, 4], [4, 8], [4, 32]),
        ([4, 8], [2, 4], [2, 1]),
        ([2, 4], [2, 1], None),
        (0.1, 0.0, -0.1),  # refused by the schema
        ({"tokens": 100}, {"tokens": 200}, {"tokens": 400}),
        ({"steps": 100}, {"tokens": 200}, None),
    ],
)
def test_the_value_beyond_an_edge_keeps_the_ratio(before: object, edge: object, wanted: object) -> None:
    assert next_value(before, edge) == wanted


def test_a_value_that_the_study_file_refuses_is_named(drawn: Draw) -> None:
    gains = {(): 0.0, (("dropout", "0.3"),): 0.2, (("dropout", "0.9"),): 0.4}
    axes = {RATE: None, "rank": None, "dropout": [0.0, 0.3, 0.9], "seed": [1, 2, 3]}
    steps = find_next_steps(drawn({"gains": gains, "sd": 0.005}, scoring={"limit": 1600}, **axes))
    (refused,) = steps.untested  # a dropout of 2.7
    assert (refused.kind, refused.reason, refused.about["best"]) == (BEYOND, "value_not_allowed", "0.9")


def test_an_under_trained_base_case_asks_for_twice_the_budget(drawn: Draw) -> None:
    compared = drawn({"gains": GAINS})
    twice = {"tokens": 2 * compared.study.base_case.budget.tokens}
    case = compared.arms[()].runs
    late = {run: [{"cause": "under_trained"}] for run in case}
    steps = find_next_steps(replace(compared, summary={**compared.summary, "diagnoses": late}))
    (longer,) = [question for question, _ in steps.ways if question.kind == LONGER]
    (option, *_) = [option for option in steps.options if option.kind == TOKENS]
    assert option.change.values == (("budget", twice),) and longer.name in option.chances
    # Twice the tokens take twice the time.
    assert option.train_hours == pytest.approx(option.runs * 2 * TRAIN_SECONDS / 3600)
    one = {case[0]: [{"cause": "under_trained"}]}
    steps = find_next_steps(replace(compared, summary={**compared.summary, "diagnoses": one}))
    assert not [question for question, _ in steps.ways if question.kind == LONGER]  # one of two runs


def test_a_factorial_grid_compares_each_new_value_with_its_partners(drawn: Draw) -> None:
    grid = {"design": "factorial", "base_case_seeds": []}
    gains = {(): 0.2, LOW: 0.0, HIGH: 0.4, RANK_64: 0.2, (*LOW, *RANK_64): 0.0, (*HIGH, *RANK_64): 0.4}
    steps = find_next_steps(drawn({"gains": gains, "sd": 0.01}, grid=grid, rank=[16, 64], seed=[1, 2, 3]))
    (beyond,) = [question for question, _ in steps.ways if question.kind == BEYOND]
    weights = {side.arm: side.weight for side in beyond.sides}
    assert len(weights) == 4 and set(weights.values()) == {0.5} and () in weights


def test_what_is_promised_is_kept(make: Callable, tmp_path: Path) -> None:
    """Studies with known effects: the options promise what carrying them out does."""
    import numpy as np

    from tests.fixtures.drawn_studies import compared_results

    study, predicted, found = make(), [], []
    for number in range(6):
        effects = np.random.default_rng(number).normal(0, 0.06, len(ARMS))
        truth = Truth(100 + number, {arm: 0.2 + effect for arm, effect in zip(ARMS, effects)})
        steps = find_next_steps(compared_results(study, truth))
        promising = [option for option in steps.options if max(option.chances.values()) >= 0.75]
        for option in sorted(promising, key=lambda option: option.hours)[:3]:
            after = carried_out(steps, option.change, truth, tmp_path)
            for question, _ in steps.ways:
                if question.kind in (AXIS, GAIN) and question.name in option.chances:
                    predicted.append(option.chances[question.name])
                    found.append(closes(after, question))
    predicted, found = np.array(predicted), np.array(found)
    promised = predicted >= 0.75
    assert promised.sum() > 15 and found[promised].mean() >= 0.75
    assert predicted.mean() == pytest.approx(found.mean(), abs=0.1)
