"""The statistics against published worked examples, the libraries' own results, and simulation."""

import numpy as np
import pytest
from scipy import stats as scipy_stats
from scipy.linalg import sqrtm

from loragrid.statistics import paired_statistics, sign_flips
from loragrid.statistics.clustered_means import mean_interval, ratio_error, units_of
from loragrid.statistics.power import fewest_units
from loragrid.statistics.sign_flips import Draws


def compare(a, b, *, draws: int | Draws = 2000, **options):
    draws = draws if isinstance(draws, Draws) else Draws(draws, seed=1)
    settings = {"confidence": 0.95, "draws": draws} | options
    return paired_statistics.compare_paired(np.atleast_2d(a).astype(float), np.atleast_2d(b).astype(float), **settings)


def pairs(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.array([1] * both + [0] * gained + [1] * lost + [0] * neither)
    b = np.array([1] * both + [1] * gained + [0] * lost + [0] * neither)
    return a, b


def test_mcnemar_and_bonett_price_of_a_published_table() -> None:
    # Fagerland, Lydersen & Laake 2013/2014, airway hyper-responsiveness before and after stem cell
    # transplantation (Bentur et al. 2009): 1 both, 1 and 7 discordant, 12 neither of 21. They give
    # exact McNemar p = 0.070 and, for the difference of -0.286, a Bonett-Price interval of -0.508
    # to -0.014 (their p1 - p2).
    found = compare(*pairs(both=1, gained=7, lost=1, neither=12))
    assert found.p[0] == pytest.approx(0.0703, abs=5e-5)
    assert found.difference[0] == pytest.approx(6 / 21)
    assert (found.low[0], found.high[0]) == pytest.approx((0.014, 0.508), abs=1e-3)
    assert found.method == [paired_statistics.MCNEMAR]


def test_nothing_discordant_is_no_evidence_and_no_certainty() -> None:
    found = compare(*pairs(both=40, gained=0, lost=0, neither=10))
    assert found.p[0] == 1.0 and found.difference[0] == 0.0
    assert found.low[0] < 0 < found.high[0]


def test_permutation_of_darwins_maize() -> None:
    # Fisher 1935, The Design of Experiments, 3: of 2^15 sign patterns of Darwin's 15 differences
    # 863 give a sum as large as the observed 314 in one tail, so p = 1726/32768 = 0.0527 two-sided;
    # t = 2.148, p = 0.0497.
    darwin = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48])
    found = compare(np.zeros(15), darwin)
    assert found.p[0] == pytest.approx(1726 / 32768) and found.method == [sign_flips.EXACT]
    t = scipy_stats.ttest_1samp(darwin, 0).confidence_interval(0.95)
    assert (found.low[0], found.high[0]) == pytest.approx((t.low, t.high))


def test_drawn_flips_are_a_sample_of_all_flips_ties_and_zeros_included() -> None:
    """With units that fill no whole bytes, and more sums than one part holds."""
    generator = np.random.default_rng(4)
    for count in (9, 16, 19):
        sums = generator.integers(-2, 4, size=(60, count)).astype(float)
        sums[0] = 0
        exact = sign_flips.all_flips(sums)
        mean, stderr = sums.mean(axis=1), sums.std(axis=1) / count**0.5
        drawn, methods = sign_flips.drawn_flips(sums, mean, stderr, count - 1, draws=Draws(40_000, seed=2))
        by_flips = np.array(methods) == sign_flips.DRAWN
        error = np.sqrt(exact * (1 - exact) / 40_000)
        assert by_flips.sum() > 50 and np.all(np.abs(drawn - exact)[by_flips] <= 4.5 * error[by_flips] + 1 / 40_000)


@pytest.mark.parametrize("items", [12, 60])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_infinite_items_decide_nothing(items: int) -> None:
    a = np.random.default_rng(1).normal(size=(3, items))
    b = a + 1
    b[0, 0] = a[1, 0] = b[1, 0] = np.inf
    p = paired_statistics.compare_paired(a, b, confidence=0.95, draws=Draws(999, 1)).p
    assert np.isnan(p).tolist() == [True, True, False] and p[2] < 0.01
    assert paired_statistics.verdict(-1.0, p[0], 0.05, of_setting=True) == paired_statistics.UNSURE


def test_a_large_study_is_tested_in_parts_that_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(1).normal(0.3, 1, (5, 24))
    monkeypatch.setattr(sign_flips, "MOST_SUMS", 48)
    parts = sign_flips._reached(sums, 2_000, 1)
    assert parts.tolist() == [int(sign_flips._reached(row[None], 2_000, 1)[0]) for row in sums]
    monkeypatch.undo()
    assert sign_flips._reached(sums, 2_000, 1) == pytest.approx(parts, rel=0.5, abs=20)


def test_all_flips_are_those_of_scipy_ties_and_zeros_included() -> None:
    rng = np.random.default_rng(10)
    sums = np.round(rng.normal(0.4, 1, (20, 9)), 1) * (rng.random((20, 9)) < 0.8)
    sums[0] = 0
    for row, p in zip(sums, sign_flips.all_flips(sums)):
        found = scipy_stats.permutation_test((row,), np.mean, permutation_type="samples", n_resamples=2**9)
        assert p == pytest.approx(min(1.0, found.pvalue))


def test_no_p_value_is_under_what_the_test_can_give() -> None:
    assert fewest_units(0.05) == 6 and fewest_units(0.01) == 8
    for units in (5, 6, 12):
        found = compare(np.zeros(units), np.linspace(1, 2, units))
        assert found.p[0] == found.least_p == 2.0 ** (1 - units)
    assert compare(np.zeros(6), np.linspace(1, 2, 6)).least_p < 0.05 < compare(np.zeros(5), np.ones(5)).least_p


def test_small_p_values_survive_a_correction_for_many() -> None:
    rng = np.random.default_rng(0)
    clear = rng.normal(1.0, 1.0, 200)
    found = compare(np.zeros(200), clear, draws=200)
    assert found.p[0] == pytest.approx(scipy_stats.ttest_1samp(clear, 0).pvalue)
    assert found.method == [sign_flips.TAIL]


def test_clusters_count_as_one_unit_as_statsmodels_has_it() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(30), 5)
    difference = np.repeat(rng.normal(0.2, 1, 30), 5) + rng.normal(0, 0.1, 150)
    found = compare(np.zeros(150), difference, clusters=clusters)
    reference = sm.OLS(difference, np.ones(150)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    # statsmodels' small-sample factor is K/(K-1) (n-1)/(n-p), and p = 1 here.
    assert found.stderr[0] == pytest.approx(reference.bse[0])
    assert found.units == 30
    assert found.stderr[0] > 2 * compare(np.zeros(150), difference).stderr[0]


@pytest.mark.parametrize("shared", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("sizes", [(13, 5, 5, 2, 1), (40, *[5] * 7), tuple(range(1, 13)), (5,) * 20])
def test_coverage_with_few_unequal_clusters(sizes: tuple[int, ...], shared: float) -> None:
    """`shared` is the part of an item's variance that its cluster has in common.

    The usual error covers 0.78 to 0.85 of the first two at worst; the corrected one errs on the
    wide side where items of a cluster share nothing.
    """
    rng = np.random.default_rng(12)
    clusters, draws = np.repeat(np.arange(len(sizes)), sizes), 4000
    values = np.sqrt(shared) * rng.normal(size=(draws, len(sizes)))[:, clusters]
    values = values + np.sqrt(1 - shared) * rng.normal(size=values.shape)
    mean, stderr, df = ratio_error(units_of(values, np.ones(len(clusters)), clusters))
    holds = np.abs(mean) <= scipy_stats.t.ppf(0.975, df) * stderr
    assert 0.935 <= holds.mean() <= (0.99 if shared == 0 else 0.97)


def test_degrees_of_freedom_are_those_of_bell_and_mccaffrey() -> None:
    """Against the definition with matrices: eigenvalues of G'G, G's columns (I - H)_k A_k X_k / n."""
    sizes = np.array([4, 1, 7, 2, 3])
    clusters, n = np.repeat(np.arange(5), sizes), sizes.sum()
    keep = np.eye(n) - 1 / n
    columns = [
        keep[:, rows] @ np.linalg.inv(sqrtm(keep[np.ix_(rows, rows)])).real @ np.ones(rows.sum()) / n
        for rows in (clusters == k for k in range(5))
    ]
    g = np.array(columns).T
    df = np.trace(g.T @ g) ** 2 / np.trace(g.T @ g @ g.T @ g)
    assert ratio_error(units_of(np.zeros((1, n)), np.ones(n), clusters))[2] == pytest.approx(df)


def test_weights_make_a_weighted_mean() -> None:
    rng = np.random.default_rng(4)
    difference, weights = rng.normal(0.1, 1, 50), rng.integers(1, 20, 50)
    found = compare(np.zeros(50), difference, weights=weights)
    assert found.difference[0] == pytest.approx(np.average(difference, weights=weights))


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_coverage_of_right_or_wrong_intervals(share: float) -> None:
    rng = np.random.default_rng(5)
    draws = rng.choice([1, -1, 0], size=(4000, 100), p=[share + 0.05, share, 1 - 2 * share - 0.05])
    found = compare((draws < 0).astype(float), (draws > 0).astype(float))
    holds = ((found.low <= 0.05) & (found.high >= 0.05)).mean()
    assert 0.93 <= holds <= 0.97


@pytest.mark.parametrize("skewed", [False, True])
def test_coverage_of_t_intervals(skewed: bool) -> None:
    rng = np.random.default_rng(6)
    values = rng.gamma(2.0, 1.0, (4000, 100)) - 2.0 if skewed else rng.normal(0, 1, (4000, 100))
    found = compare(np.zeros_like(values), values, draws=100)
    assert 0.93 <= ((found.low <= 0) & (found.high >= 0)).mean() <= 0.97


@pytest.mark.parametrize("method", ["holm", "bh"])
def test_no_effect_gives_few_false_verdicts(method: str) -> None:
    """Of 1,000 studies of 12 comparisons without any effect at most 5% hold a false claim.

    So at most 5% hold a false `better`. The bound leaves three standard errors of the simulation.
    All studies are tested in two calls.
    """
    rng, studies = np.random.default_rng(7), 1000
    base = rng.random((studies, 1, 60)) < 0.5
    runs = np.where(rng.random((studies, 8, 60)) < 0.6, base, rng.random((studies, 8, 60)) < 0.5)
    base = np.broadcast_to(base, runs.shape).reshape(-1, 60).astype(float)
    binary = compare(base, runs.reshape(-1, 60).astype(float))
    plain = compare(np.zeros((4 * studies, 30)), rng.gamma(4.0, 1.0, (4 * studies, 30)) - 4.0, draws=200)
    p = np.hstack([binary.p.reshape(studies, 8), plain.p.reshape(studies, 4)])
    signs = np.hstack([binary.difference.reshape(studies, 8), plain.difference.reshape(studies, 4)])
    claims = np.array([paired_statistics.corrected(row, method=method) for row in p]) < 0.05
    bound = 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)
    assert claims.any(axis=1).mean() <= bound
    assert (claims & (signs > 0)).any(axis=1).mean() <= 0.05


@pytest.mark.parametrize("shape", ["binary", "plain", "clustered"])
def test_coverage_of_one_models_mean(shape: str) -> None:
    rng, holds = np.random.default_rng(13), []
    clusters = np.repeat(np.arange(20), 5) if shape == "clustered" else None
    for _ in range(1500):
        truth = rng.uniform(0.1, 0.9)
        values = truth + rng.normal(0, 1, 100) + (rng.normal(0, 1, 20)[clusters] if shape == "clustered" else 0)
        values = (rng.random(100) < truth).astype(float) if shape == "binary" else values
        found = mean_interval(values, weights=None, clusters=clusters, confidence=0.95)
        holds.append(found["low"] <= truth <= found["high"])
    assert 0.93 <= np.mean(holds) <= 0.97


def test_corrections_are_those_of_the_papers() -> None:
    # Benjamini & Hochberg 1995, table of 15 ordered p values: at 5% Bonferroni-type methods reject
    # 3, theirs 4.
    p = np.array([1, 4, 19, 95, 201, 278, 298, 344, 459, 3240, 4262, 5719, 6528, 7590, 10000]) / 10000
    assert (paired_statistics.corrected(p, method="bh") < 0.05).sum() == 4
    assert (paired_statistics.corrected(p, method="holm") < 0.05).sum() == 3
    assert np.isnan(paired_statistics.corrected(np.array([np.nan, 0.01]), method="holm")[0])


def test_verdicts() -> None:
    def of_setting(improvement: float, p: float) -> str:
        return paired_statistics.verdict(improvement, p, 0.05, of_setting=True)

    assert of_setting(0.1, 0.01) == "better" and of_setting(-0.1, 0.01) == "worse"
    assert of_setting(0.1, 0.2) == of_setting(0.1, float("nan")) == "can't tell"
    for improvement in (0.1, -0.1):
        assert paired_statistics.verdict(improvement, 0.01, 0.05, of_setting=False) == "adapters differ"


def test_draws_are_raised_until_they_reach_the_level() -> None:
    """With 200 draws no p is below 0.01; the level of a family of 100 comparisons is 0.0005."""
    values = np.random.default_rng(4).normal(0.19, 1.0, 200)
    exact = scipy_stats.ttest_1samp(values, 0).pvalue
    found = compare(np.zeros(200), values, draws=Draws(200, seed=1, level=0.0005))
    assert found.method == [sign_flips.DRAWN] and found.least_p == 0
    assert found.p[0] == pytest.approx(exact, rel=0.3) and exact < 0.01
    # What is far from any level keeps the draws that the study file asks for.
    near = compare(np.zeros(200), values - 0.17, draws=Draws(200, seed=1, level=0.0005))
    assert near.p[0] == compare(np.zeros(200), values - 0.17, draws=200).p[0]


@pytest.mark.parametrize("units", [12, 60])
def test_a_constant_shift_is_not_certain(units: int) -> None:
    found = compare(np.zeros(units), np.full(units, 0.3))
    assert found.low[0] < 0.3 < found.high[0]
    # One more unit without the shift would lower the mean by 0.3 / (units + 1).
    assert found.high[0] - 0.3 > 0.3 / (units + 1)
    assert found.p[0] > 0


def test_skewness_is_scipys() -> None:
    values = np.random.default_rng(2).gamma(1.0, size=(3, 40))
    assert paired_statistics.skewness(values) == pytest.approx(scipy_stats.skew(values, axis=1))
    assert paired_statistics.skewness(np.ones((1, 5))) == 0
