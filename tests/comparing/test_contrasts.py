"""One comparison: crossed seeds and items by hand, levels, and what a row counts."""

import numpy as np
import pytest
from scipy.stats import t as student

from loragrid.comparing.contrasts import Side, contrast_row, level_of
from loragrid.comparing.measures import measures_of, spreads_of
from tests.fixtures.item_tables import TERMS, item_table

ITEMS = 80


def side(name: str, seeds: int, coefficient: float) -> Side:
    return Side(tuple(f"{name}{seed}" for seed in range(seeds)), coefficient, trained=True)


def base(name: str, coefficient: float) -> Side:
    return Side((name,), coefficient, trained=False)


def drawn(settings: dict[str, int], *, seed: int = 0, seed_sd: float = 0.05) -> dict[str, np.ndarray]:
    """Values of the settings' runs: an item's ease, what a seed does to every item, and both together."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0.5, 0.2, ITEMS)
    values = {"base": ease + rng.normal(0, 0.1, ITEMS)}
    for place, (name, seeds) in enumerate(settings.items()):
        own = ease + 0.1 * place + rng.normal(0, 0.1, ITEMS)
        for run in range(seeds):
            values[f"{name}{run}"] = own + rng.normal(0, seed_sd) + rng.normal(0, 0.1, ITEMS)
    return values


def row_of(values: dict, place: list[Side], **options) -> dict:
    (measure,) = measures_of({"t": item_table(values, **options)}, "t")
    runs = [list(side.subjects) for side in place if side.trained]
    return contrast_row(measure, [place], spreads_of([measure], runs), TERMS)


def anova(runs: np.ndarray) -> tuple[float, float]:
    """Variances of a mean over runs (k, n) from a two-way table: between runs' scores, and of both together."""
    k, n = runs.shape
    residuals = runs - runs.mean(axis=0) - runs.mean(axis=1, keepdims=True) + runs.mean()
    both = (residuals**2).sum() / ((n - 1) * (k - 1)) / (n * k)
    return np.var(runs.mean(axis=1), ddof=1) / k, both


def test_seeds_and_items_are_crossed() -> None:
    """Three seeds against two: variances of a two-way table, and the quantile as their weighted mean."""
    values = drawn({"a": 3, "b": 2})
    row = row_of(values, [side("a", 3, -1.0), side("b", 2, 1.0)])
    a, b = (np.array([values[f"{name}{run}"] for run in range(seeds)]) for name, seeds in (("a", 3), ("b", 2)))
    change = b.mean(axis=0) - a.mean(axis=0)
    (seeds_a, both_a), (seeds_b, both_b) = anova(a), anova(b)
    # The seeds' spread holds what varies with item and seed together, so over items it is taken away once.
    items = change.var(ddof=1) / ITEMS - both_a - both_b
    variances, df = np.array([items, seeds_a, seeds_b]), np.array([ITEMS - 1, 2, 1])
    assert row["difference"] == pytest.approx(change.mean())
    assert row["stderr"] ** 2 == pytest.approx(variances.sum(), rel=0.02)
    half = (variances / variances.sum() * student.ppf(0.975, df)).sum() * np.sqrt(variances.sum())
    assert (row["low"], row["high"]) == pytest.approx((change.mean() - half, change.mean() + half), rel=0.02)
    # The level at which the interval would end at zero.
    quantile = (variances / variances.sum() * student.isf(row["p"] / 2, df)).sum()
    assert quantile * np.sqrt(variances.sum()) == pytest.approx(abs(change.mean()), rel=0.02)
    assert (row["level"], row["covers"], row["method"]) == (
        "setting", "items and seeds", "t with item and seed variance",
    )  # fmt: skip


def test_an_untrained_base_adds_no_seed() -> None:
    values = drawn({"a": 3})
    row = row_of(values, [base("base", -1.0), side("a", 3, 1.0)])
    runs = np.array([values[f"a{run}"] for run in range(3)])
    seeds, both = anova(runs)
    items = (runs.mean(axis=0) - values["base"]).var(ddof=1) / ITEMS - both
    assert row["stderr"] ** 2 == pytest.approx(items + seeds, rel=0.02)
    assert row["seed_variance"] == pytest.approx(np.var(runs.mean(axis=1), ddof=1) - 3 * both, rel=0.05)


def test_the_noise_of_a_row_gives_back_its_error() -> None:
    """`NoiseVariances` of a row: item / n + factor · (seed + item_seed / n) is the squared error."""
    row = row_of(drawn({"a": 3, "b": 3}), [side("a", 3, -1.0), side("b", 3, 1.0)])
    by_hand = row["item_variance"] / ITEMS + 2 / 3 * (row["seed_variance"] + row["item_seed_variance"] / ITEMS)
    assert row["stderr"] ** 2 == pytest.approx(by_hand)


def test_the_seeds_spread_widens_the_interval_and_one_seed_leaves_it_out() -> None:
    sides = [side("a", 3, -1.0), side("b", 3, 1.0)]
    quiet, loud = (row_of(drawn({"a": 3, "b": 3}, seed_sd=sd), sides) for sd in (0.01, 0.2))
    assert loud["high"] - loud["low"] > 3 * (quiet["high"] - quiet["low"])
    values = drawn({"a": 3, "b": 3}, seed_sd=0.2)
    alone = row_of(values, [side("a", 1, -1.0), side("b", 1, 1.0)])
    assert (alone["level"], alone["covers"]) == ("adapters", "items")
    assert alone["high"] - alone["low"] < 0.3 * (loud["high"] - loud["low"])


@pytest.mark.parametrize(
    "place, level",
    [
        ([side("a", 2, -1.0), side("b", 2, 1.0)], "setting"),
        ([side("a", 3, -1.0), side("b", 1, 1.0)], "adapters"),
        ([base("base", -1.0), side("b", 2, 1.0)], "setting"),
        ([base("base", -1.0), side("b", 1, 1.0)], "adapters"),
        # Bases have no seed, so nothing is missing.
        ([base("base", -1.0), base("other", 1.0)], "setting"),
    ],
)
def test_a_setting_needs_a_second_seed_in_every_trained_arm(place: list[Side], level: str) -> None:
    assert level_of([place]) == level
    # One arm of one seed anywhere decides for the mean over places.
    assert level_of([place, [side("c", 2, -1.0), side("d", 1, 1.0)]]) == "adapters"


def test_items_that_all_runs_have_are_counted_of_all_there_are() -> None:
    values = drawn({"a": 2, "b": 2})
    values["b1"][35:] = np.nan
    row = row_of(values, [side("a", 2, -1.0), side("b", 2, 1.0)])
    assert (row["items"], row["items_total"], row["requests"], row["units"]) == (35, ITEMS, 35, 35)
    by_hand = np.mean([values["b0"][:35], values["b1"][:35]]) - np.mean([values["a0"][:35], values["a1"][:35]])
    assert row["difference"] == pytest.approx(by_hand)


def test_clusters_widen_the_part_of_the_items() -> None:
    values = drawn({"a": 2, "b": 2}, seed_sd=0.001)
    place, clusters = [side("a", 2, -1.0), side("b", 2, 1.0)], np.arange(ITEMS) // 8
    shift = np.random.default_rng(3).normal(0, 0.3, ITEMS // 8)[clusters]
    for run in ("b0", "b1"):
        values[run] = values[run] + shift
    alone, together = row_of(values, place), row_of(values, place, clusters=clusters)
    assert (alone["units"], together["units"]) == (ITEMS, ITEMS // 8)
    assert together["stderr"] > 2 * alone["stderr"]


def test_too_few_units_and_missing_scores_have_a_reason() -> None:
    values = {name: value[:4] for name, value in drawn({"a": 2, "b": 2}).items()}
    place = [side("a", 2, -1.0), side("b", 2, 1.0)]
    assert row_of(values, place)["reason"] == "too_few_items"
    few = row_of(drawn({"a": 2, "b": 2}), place, clusters=np.arange(ITEMS) // 20)
    assert (few["reason"], few["units"]) == ("too_few_clusters", 4) and "p" not in few
    del values["b1"]
    missing = contrast_row(measures_of({"t": item_table(values)}, "t")[0], [place], {}, TERMS)
    assert (missing["reason"], missing["unscored"]) == ("no_score", "b1")


@pytest.mark.parametrize("seeds", [1, 2])
def test_pooled_retention_is_the_mean_of_its_tasks_with_their_errors(seeds: int) -> None:
    made = {task: drawn({"a": 2}, seed=number) for number, task in enumerate(("facts", "sums", "lists"))}
    tables = {task: item_table(values, task=task, group="retention") for task, values in made.items()}
    *single, pooled = measures_of(tables, None)
    place = [base("base", -1.0), side("a", seeds, 1.0)]
    spreads = spreads_of([*single, pooled], [["a0", "a1"]])
    rows = [contrast_row(measure, [place], spreads, TERMS) for measure in single]
    row = contrast_row(pooled, [place], spreads, TERMS)
    assert (row["task"], row["metric"], row["family"]) == ("retention", "mean", "retention")
    assert row["difference"] == pytest.approx(np.mean([one["difference"] for one in rows]))
    assert row["items"] == row["units"] == 3 * ITEMS
    if seeds == 1:
        assert row["method"] == "t over tasks"
        assert row["stderr"] ** 2 == pytest.approx(np.sum([one["stderr"] ** 2 for one in rows]) / 9)
    else:
        # A seed moves all tasks of a run at once, so its spread is that of the runs' means.
        means = [np.mean([values[run] for values in made.values()]) for run in ("a0", "a1")]
        of_items = row["error"].variances[0]
        assert row["stderr"] ** 2 - of_items == pytest.approx(np.var(means, ddof=1) / 2)


def test_no_change_on_any_item_still_has_an_interval() -> None:
    same = np.tile([0.0, 1.0], ITEMS // 2)
    row = row_of(dict.fromkeys(("a0", "a1", "b0", "b1"), same), [side("a", 2, -1.0), side("b", 2, 1.0)])
    assert row["difference"] == 0 and row["p"] == 1
    constant = {name: same * 0.5 + (0.1 if name[0] == "b" else 0) for name in ("a0", "a1", "b0", "b1")}
    row = row_of(constant, [side("a", 2, -1.0), side("b", 2, 1.0)])
    assert row["difference"] == pytest.approx(0.1) and row["low"] < 0.1 < row["high"] and 0 < row["p"] < 1
