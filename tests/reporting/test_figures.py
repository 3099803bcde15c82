"""Figures: the same bytes each time, unique ids, no inline style, untrusted text harmless."""

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from loragrid.comparing.diagnosing.run_evidence import LossPath
from loragrid.reporting.figures import charts
from loragrid.reporting.figures.charts import FULL, HALF, HOLLOW, Estimate, RunChange, ScoreSeries
from loragrid.reporting.figures.heat_map import DARKEST, HeatMap, heat_map
from loragrid.reporting.figures.loss_chart import Curve, loss_curves, seeds_curve, smoothed
from loragrid.reporting.figures.style import COLOURS, matplotlib_style, spread_labels
from loragrid.reporting.figures.svg import StyleClasses, inline_svg, save, svg_document
from loragrid.reporting.figures.trade_off_chart import trade_off
from loragrid.reporting.figures.value_axis import ladder_places, value_axis

HOSTILE = """</text><script>alert(1)</script> id="x" style="display:none" $\\frac{1}{2}$ <!--"""


def some_curves(label: str = "0.01") -> list[Curve]:
    tokens = [float(1000 * i) for i in range(50)]
    losses = [2.5 - 0.02 * i for i in range(50)]
    return [
        Curve(label, "s0", (tokens, losses), (tokens[::10], losses[::10])),
        Curve("0.1", "s1", (tokens, losses), ([], [])),
    ]


def shades(scores: list[float], unit: str, *, higher: bool) -> list[float]:
    columns = [str(number) for number in range(len(scores))]
    found = HeatMap(["a"], columns, [scores], [None], [None], None, "row", "column", unit, higher)
    with matplotlib_style():
        patches = heat_map(found, "t").axes[0].patches
    return [patch.get_alpha() for patch in patches]


def test_scores_that_look_alike_in_print_have_similar_shades() -> None:
    best, other = shades([1.431, 1.433], "plain", higher=False)
    assert best - other == pytest.approx(0.02, abs=0.01)
    assert shades([0.2, 0.8], "share", higher=True) == shades([2.0, 1.0], "plain", higher=False) == [0.04, DARKEST]


def test_twice_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        with matplotlib_style():
            save(loss_curves(some_curves()), tmp_path / folder, "loss")
    for name in ("loss.svg", "loss.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a/loss.svg").read_bytes()


def test_two_inline_figures_share_no_id_and_no_style() -> None:
    styles = StyleClasses()
    with matplotlib_style():
        document = svg_document(loss_curves(some_curves()))
    first = inline_svg(document, name="one", description="First", styles=styles)
    second = inline_svg(document, name="two", description="Second", styles=styles)
    ids = re.findall(r'\bid="([^"]+)"', first + second)
    assert len(ids) == len(set(ids)) > 4
    targets = {*re.findall(r"url\(#([^)]+)\)", first), *re.findall(r'href="#([^"]+)', first)}
    own = {one for one in ids if one.startswith("one-")}
    assert targets == own - {"one-title"} and "<g>" not in first
    assert " style=" not in first and "<style" not in first and "<?xml" not in first
    assert 'aria-labelledby="one-title"' in first and '<title id="one-title">First</title>' in first


def test_colours_become_variables() -> None:
    styles = StyleClasses()
    with matplotlib_style():
        inline_svg(svg_document(loss_curves(some_curves())), name="one", description="t", styles=styles)
    css = styles.css()
    assert "var(--s0)" in css and "var(--grid)" in css and "DejaVu" not in css
    assert not [colour for colour in COLOURS.values() if colour in css]


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # the label is wider than the picture
def test_hostile_text_stays_text() -> None:
    styles = StyleClasses()
    with matplotlib_style():
        picture = inline_svg(
            svg_document(loss_curves(some_curves(HOSTILE))), name="one", description=HOSTILE, styles=styles
        )
    tree = ElementTree.fromstring(picture)
    names = {element.tag.split("}")[-1] for element in tree.iter()}
    assert "script" not in names and "display:none" not in styles.css()
    texts = [element.text for element in tree.iter() if element.tag.endswith("text")]
    assert any(HOSTILE in (text or "") for text in texts)  # shown unchanged, not interpreted


@pytest.mark.parametrize("share", [True, False])
def test_every_chart_draws_one_and_many(share: bool) -> None:
    point = Estimate(0.5, 0.4, 0.6)
    unknown = Estimate(0.2, float("nan"), float("nan"), HOLLOW)
    with matplotlib_style():
        for count in (1, 12):
            changes = [RunChange(f"run {i}", point, None if i % 2 else unknown) for i in range(count)]
            svg_document(charts.differences(changes, ("Learned", "Kept"), share=share))
            changes = [RunChange(f"run {i}", Estimate(0.01 * i, 0, 0.2), point, i == 0) for i in range(count)]
            svg_document(trade_off(changes, share=share, margin=0.02))
            series = [
                ScoreSeries("target", "s0", [point] * count, single=[[0.4, 0.6]] * count),
                ScoreSeries("untrained", "s0", [None] * count, untrained=True),
            ]
            values = [str(i) for i in range(count)]
            for base_case in (0, None):
                along = value_axis(values, [10.0**i for i in range(count)], "rate", base_case)
                svg_document(charts.scores_by_value(series, along, share=share, title="Scores"))
        svg_document(charts.length_histogram([0, 10, 20], [1, 2], 20))
        svg_document(loss_curves([Curve("nan", "s0", ([1.0], [float("nan")]), ([1.0], [float("nan")]))]))


def test_names_of_values_that_would_touch_are_slanted() -> None:
    point = ScoreSeries("target", "s0", [Estimate(0.5, 0.4, 0.6)] * 10)
    with matplotlib_style():
        for rates, slanted in ((["0.001", "0.01"], False), ([f"0.00{n}" for n in range(10)], True)):
            along = value_axis(rates, [None] * len(rates), "learning rate", None)
            figure = charts.scores_by_value([point], along, share=True, title="Scores")
            assert (figure.axes[0].get_xticklabels()[0].get_rotation() > 0) is slanted


def test_full_half_full_and_hollow_are_three_marks() -> None:
    pictures = []
    with matplotlib_style():
        for mark in (FULL, HALF, HOLLOW):
            change = RunChange("run", Estimate(0.5, 0.4, 0.6, mark), None)
            pictures.append(svg_document(charts.differences([change], ("Learned", "Kept"), share=True)))
    assert len(set(pictures)) == 3


def test_of_many_runs_the_front_alone_is_named() -> None:
    changes = [
        RunChange(f"run {i}", Estimate(i / 1000, 0, 1), Estimate(-i / 1000, -1, 0), on_front=i > 996)
        for i in range(1000)
    ]
    with matplotlib_style():
        picture = svg_document(trade_off(changes, share=True, margin=0.02))
    assert [name for name in re.findall(r">(run \d+)<", picture)] == ["run 997", "run 998", "run 999"]
    assert picture.count("<use ") >= 1000 and len(picture) < 200_000


def test_long_names_take_two_lines_and_leave_room() -> None:
    changes = [RunChange("learning rate 0.008, rank 64, batch 1×1, seed 2", Estimate(0.5, 0.4, 0.6), None)]
    with matplotlib_style():
        picture = svg_document(
            charts.differences(changes, ("Learned", "Kept"), share=True, note="the 1 largest gain of 9 runs")
        )
    assert ">learning rate 0.008, rank<" in picture and ">64, batch 1×1, seed 2<" in picture
    assert ">the 1 largest gain of 9 runs<" in picture


def test_labels_are_moved_apart_in_order() -> None:
    placed = spread_labels([1.0, 1.0, 1.01, 5.0], 0.5)
    assert placed == sorted(placed) and all(b - a >= 0.5 - 1e-9 for a, b in pairwise(placed))
    assert sum(placed) == pytest.approx(8.01)


def test_long_curves_are_thinned_to_means() -> None:
    tokens, losses = smoothed(([float(i) for i in range(1000)], [2.0] * 1000))
    assert len(tokens) <= 60 and set(losses) == {2.0}


@pytest.mark.parametrize(
    "sizes, places",
    [
        ([1e-5, 1e-4, 1e-3], [0, 1, 2]),
        ([1e-4, 2e-4, 1.6e-3], [0, 1, 4]),
        ([1, 2, 3], None),  # no ladder
        ([1e-5, 1e-1], None),  # two values have one distance
        ([1.0, None, 8.0], None),
        ([1.0, 1.0, 8.0], None),
        ([1.0, 1.01, 800.0], None),  # too far apart for its marks
        ([*(2.0**power for power in range(9)), 300.0], None),  # near enough one by one, too many of them together
    ],
)
def test_a_ladder_of_values_is_spaced_by_logarithm(sizes: list, places: list | None) -> None:
    found = ladder_places(sizes)
    assert found is None if places is None else found == pytest.approx(places)


def test_seeds_become_a_mean_with_their_range_and_a_stopped_seed_is_left_out() -> None:
    tokens = np.array([0.0, 100.0, 200.0])
    paths = [
        LossPath(tokens, tokens + seed, tokens, ends, np.array([2.0, 1.0 + seed, 0.5])[: len(ends)])
        for seed, ends in ((0.0, tokens), (0.4, tokens), (9.0, tokens[:2]))
    ]
    curve = seeds_curve("rate", "s0", paths)
    assert curve.heldout[1] == pytest.approx([2.0, 1.2, 0.5])
    assert curve.band[1] == pytest.approx([2.0, 1.0, 0.5]) and curve.band[2] == pytest.approx([2.0, 1.4, 0.5])
    assert seeds_curve("rate", "s0", paths[:1]).band is None


def test_a_diverged_curve_does_not_flatten_the_others() -> None:
    tokens = [0.0, 1.0, 2.0]
    curves = [
        Curve("a", "s0", ([], []), (tokens, [2.5, 2.2, 2.0])),
        Curve("b", "s1", ([], []), (tokens, [2.5, 8.0, 40.0])),
    ]
    with matplotlib_style():
        low, high = loss_curves(curves).axes[0].get_ylim()
    assert (2.5 - 2.0) / (high - low) > 0.4
