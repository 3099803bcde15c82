"""The statistics against R and clubSandwich, whose results reference/statistics.R wrote."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loragrid.statistics import paired_statistics
from loragrid.statistics.clustered_means import mean_interval, ratio_error, units_of
from loragrid.statistics.power import detectable_by_t, mcnemar_power
from loragrid.statistics.seed_spread import SeedSpread
from loragrid.statistics.setting_contrasts import Arm, ErrorParts, SeedShare, contrast_test, item_part
from loragrid.statistics.sign_flips import Draws

R = json.loads((Path(__file__).parent / "reference" / "statistics.json").read_text())
CLOSE = {"rel": 1e-6}


def compare(difference: np.ndarray, **options: Any) -> paired_statistics.Paired:
    return paired_statistics.compare_paired(
        np.zeros((1, len(difference))), np.array([difference]), confidence=0.95, draws=Draws(200, seed=1), **options
    )


@pytest.mark.parametrize("case", R["mcnemar"], ids=lambda case: f"{case['gained']}-{case['lost']}")
def test_exact_mcnemar_is_rs_binomial_test(case: dict[str, Any]) -> None:
    gained, lost = case["gained"], case["lost"]
    a, b = np.repeat([[0.0, 1.0]], [gained, lost], axis=1), np.repeat([[1.0, 0.0]], [gained, lost], axis=1)
    found = paired_statistics.compare_paired(a, b, confidence=0.95, draws=Draws(200, seed=1))
    assert found.method == [paired_statistics.MCNEMAR]
    assert found.p[0] == pytest.approx(case["p"], **CLOSE)


@pytest.mark.parametrize("method", ["holm", "bh"])
def test_corrections_are_rs(method: str) -> None:
    expected = R["corrections"]
    assert paired_statistics.corrected(np.array(expected["p"]), method=method) == pytest.approx(
        expected[method], **CLOSE
    )


@pytest.mark.parametrize("case", R["wilson"], ids=lambda case: f"{case['right']}-of-{case['items']}")
def test_interval_of_a_share_is_rs_without_continuity_correction(case: dict[str, Any]) -> None:
    values = (np.arange(case["items"]) < case["right"]).astype(float)
    found = mean_interval(values, weights=None, clusters=None, confidence=0.95)
    assert (found["low"], found["high"]) == pytest.approx((case["low"], case["high"]), rel=1e-6, abs=1e-12)


def test_interval_and_sign_flips_of_single_items_are_rs() -> None:
    expected = R["plain"]
    found = compare(np.array(expected["difference"]))
    assert found.difference[0] == pytest.approx(expected["mean"], **CLOSE)
    assert (found.low[0], found.high[0]) == pytest.approx((expected["low"], expected["high"]), **CLOSE)
    assert found.p[0] == pytest.approx(expected["flips_p"], **CLOSE)


# The weights of a cluster's own items enter clubSandwich's correction one by one, ours by their
# sum.
@pytest.mark.parametrize("kind, close", [("unweighted", 1e-6), ("alone", 1e-6), ("weighted", 2e-3)])
def test_clustered_error_and_degrees_of_freedom_are_clubsandwichs(kind: str, close: float) -> None:
    expected = R["clustered"][kind]
    values, weights, clusters = (np.array(expected[name], float) for name in ("values", "weights", "clusters"))
    mean, stderr, df = ratio_error(units_of(values[None], weights, clusters))
    assert (mean[0], stderr[0], df) == pytest.approx((expected["mean"], expected["stderr"], expected["df"]), rel=close)
    found = compare(values, weights=weights, clusters=clusters)
    assert (found.low[0], found.high[0]) == pytest.approx((expected["low"], expected["high"]), rel=10 * close)


@pytest.mark.parametrize("case", R["detectable"], ids=lambda case: str(case["items"]))
def test_detectable_difference_is_rs_power_t_test(case: dict[str, Any]) -> None:
    items = case["items"]
    error = ErrorParts(np.array([case["sd"] ** 2 / items]), np.array([items - 1.0]))
    found = detectable_by_t(error, alpha=case["alpha"], power=0.8, difference=0.0, units=None)
    # Three digits of the degrees of freedom and of the level.
    assert found == pytest.approx(case["difference"], rel=2e-3)


@pytest.mark.parametrize("case", R["mcnemar_power"], ids=lambda case: str(case["items"]))
def test_power_of_the_exact_test_is_rs_over_all_tables(case: dict[str, Any]) -> None:
    found = mcnemar_power(case["difference"], against=case["against"], items=case["items"], alpha=case["alpha"])
    assert found == pytest.approx(case["power"], **CLOSE)


def test_error_of_crossed_seeds_and_items_is_lme4s() -> None:
    expected = R["crossed"]
    a, b = np.array(expected["a"]), np.array(expected["b"])
    spread = SeedSpread(float(np.mean([side.mean(axis=1).var(ddof=1) for side in (a, b)])), 4, pooled=True)
    arms = [Arm(side, np.ones(14), sign, spread) for side, sign in ((a, -1.0), (b, 1.0))]
    found = contrast_test([item_part(arms, None)], [SeedShare(1 / 3, spread)] * 2, 0.95)
    assert found.difference == pytest.approx(expected["difference"], **CLOSE)
    assert found.stderr == pytest.approx(expected["stderr"], rel=1e-4)


@pytest.mark.parametrize("case", R["cochran_cox"], ids=lambda case: str(len(case["df"])))
def test_quantile_of_several_variances_is_rs(case: dict[str, Any]) -> None:
    parts = ErrorParts(np.array(case["variances"]), np.array(case["df"], float))
    assert parts.quantile(0.05) == pytest.approx(case["quantile"], **CLOSE)
    assert parts.p_value(case["observed"]) == pytest.approx(case["p"], rel=1e-5)
