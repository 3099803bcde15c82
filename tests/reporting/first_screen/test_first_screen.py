"""The first screen: cards within their words, no green yes where nothing is fit to ship, a figure with every number."""

import dataclasses
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loragrid.comparing.trade_off import SHIP
from loragrid.reporting.figures.scales import Scale, limits, ticks
from loragrid.reporting.first_screen.cards import MOST_WORDS, cards, first_that_fits
from loragrid.reporting.first_screen.checks import failed_checks
from loragrid.reporting.first_screen.gain_map import (
    MOST_NAMED,
    NARROW,
    WIDE,
    MapAxes,
    gain_map,
    leaves_figure,
    named_points,
)
from loragrid.reporting.first_screen.map_points import MapPoint, Spot, map_points
from loragrid.reporting.first_screen.section import first_screen, map_caption
from loragrid.reporting.first_screen.steps import steps
from loragrid.reporting.page import Material
from loragrid.reporting.provenance_section import provenance
from tests.fixtures import synthetic
from tests.fixtures.pages import HOSTILE, compare_and_report, read_material

RATES = {"rank": None, "batch": None, "model": None}
TONES = {"good", "bad", "adapters", "unsure", "plain"}


def compared(folder: Path, seeds: list[int], retention: float = 0.9, items: int = 200) -> Material:
    """Settings of several rates that all gain much, and keep so much of what their base could do (0.9)."""

    def effect(cell):
        kept = 0.9 if cell is None else retention
        return {"target": 0.2 if cell is None else 0.9, "retention": kept, "loss": 2.0}

    study = synthetic.make_study(folder, grid={"axes": RATES | {"seed": seeds}})
    synthetic.make_results(study, folder / "results", effect=effect, items=items, losses=False)
    compare_and_report(study, folder)
    return read_material(study, folder / "results")


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return compared(tmp_path_factory.mktemp("keeping"), [1, 2, 3], items=900)


@pytest.fixture(scope="module")
def forgetting(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return compared(tmp_path_factory.mktemp("forgetting"), [1, 2, 3], retention=0.5)


def shown(material: Material) -> dict:
    return first_screen(material, provenance(material))


def test_a_gain_that_keeps_is_a_green_yes_with_a_run_to_take(keeping: Material) -> None:
    helped, mattered, believed = shown(keeping)["cards"]
    assert (helped.tone, helped.short) == ("good", "Yes")
    assert re.search(r"\+[\d.]+ points \(.+\), retention .+ shown fit to ship\.$", helped.text)
    assert mattered.short == "Can’t tell" and mattered.text.startswith(
        "Learning rate: no effect on running plan shown; "
    )
    assert re.match(r"3 seeds a setting, 900 items of running plan, p corrected for \d comparisons\. ", believed.text)
    take, away = shown(keeping)["steps"][-2:]
    fit = {run for row in keeping.compared.summary["trade_offs"] if row["ship"] == SHIP for run in row["runs"].split()}
    assert take.name == "Run to take"
    assert re.fullmatch(r'make app ARGS="--study made\.yaml --run (\S+)"', take.command)[1] in fit
    assert away.command == "snakemake --cores 1 export --config study=made.yaml"


def test_no_green_yes_where_nothing_is_fit_to_ship(forgetting: Material) -> None:
    helped = shown(forgetting)["cards"][0]
    assert (helped.tone, helped.short) == ("unsure", "Yes, but it forgot")
    assert helped.text.endswith("None is shown fit to ship.")
    assert (
        shown(forgetting)["steps"][-1].text.startswith("None: no setting")
        and not shown(forgetting)["steps"][-1].command
    )


def test_cards_have_few_words_and_known_tones(keeping: Material, forgetting: Material) -> None:
    for material in (keeping, forgetting):
        for card in shown(material)["cards"]:
            assert len(card.text.split()) <= MOST_WORDS and card.tone in TONES, card
    many = "a checked thing " * 40
    assert len(cards(keeping.compared, [many])[2].text.split()) <= MOST_WORDS
    assert first_that_fits("one " * 36, "two") == "two" and first_that_fits("one " * 40).endswith(" …")


def test_one_setting_with_a_held_out_loss_alone_has_no_empty_panel_and_no_idle_caution(tmp_path: Path) -> None:
    """The first study of one's own."""
    none = dict.fromkeys(("learning_rate", "rank", "batch", "model"))
    scoring = {"target": ["heldout_loss"], "retention": []}
    study = synthetic.make_study(tmp_path, grid={"axes": none | {"seed": [1, 2, 3]}}, scoring=scoring)
    losses = {"target": 0.9, "retention": 0.9}
    synthetic.make_results(
        study, tmp_path / "results", effect=lambda cell: losses | {"loss": 2.6 if cell is None else 2.5}, losses=False
    )
    page = compare_and_report(study, tmp_path)
    found = shown(material := read_material(study, tmp_path / "results"))
    helped, mattered, believed = found["cards"]
    # A loss that falls has a minus, though it is a gain.
    assert helped.short == "Yes, on the target"
    assert re.search(r"\(lower is better\)\. The base case: −0\.\d+ \(−.+\), retention not measured\.", helped.text)
    assert (mattered.tone, mattered.short) == ("plain", "One setting only")
    assert believed.short == "Yes" and believed.text.endswith("no held-out row in the training rows.")
    assert failed_checks(material, provenance(material)) == []
    take = found["steps"][-1]
    assert take.name == "Run to take" and "scoring.retention" in take.text
    assert "Gain on held-out loss" in page and "Kept, points" not in page


def test_failed_checks_are_named_and_lower_the_belief(keeping: Material) -> None:
    found = failed_checks(keeping, {"mixed_versions": ["torch"], "odd_code": True})
    # Nothing searched the rows of this made-up study for task items.
    assert found[0].startswith("task items were not searched")
    assert found[-2:] == ["several versions of torch", "runs trained by different code"]
    assert cards(keeping.compared, found)[2].short == "With care"
    assert cards(keeping.compared, [])[2].short == "Yes"


def test_a_study_of_which_no_run_was_compared_has_its_cards(keeping: Material) -> None:
    nothing = keeping.compared.comparisons.iloc[:1].assign(task="another")
    summary = keeping.compared.summary | {"trade_offs": []}
    found = dataclasses.replace(keeping.compared, comparisons=nothing, summary=summary)
    helped, _, believed = cards(found, [])
    assert (helped.short, believed.short) == ("Can’t tell", "Nothing to judge yet")
    assert steps(dataclasses.replace(keeping, compared=found)) == []


def test_the_next_step_names_option_chance_and_command(keeping: Material) -> None:
    folder = keeping.results / "next"
    folder.mkdir(exist_ok=True)
    question = {"name": "q", "text": "Does 0.1 differ?", "cheapest": "o"}
    option = {"id": "o", "text": "2 more seeds", "hours": 0.5, "hours_per_closed": 1, "closes": {"q": 1.0}}
    for questions, text in (
        ([question], "2 more seeds, 30 min: settles “Does 0.1 differ?” with a probability of 99%."),
        ([question | {"cheapest": None}], "No single step is likely to close one of the 1 open questions."),
        ([], "Nothing is open"),
    ):
        (folder / "next.json").write_text(json.dumps({"schema": 1, "questions": questions, "options": [option]}))
        first = steps(keeping)[0]
        assert first.name == "Do next" and first.text.startswith(text)
    (folder / "next.json").unlink()
    assert [step.name for step in steps(keeping)] == ["Run to take", "Export it"]


def test_the_figure_holds_each_setting_with_its_seeds_and_numbers(keeping: Material) -> None:
    points = map_points(keeping)
    assert [len(point.seeds) for point in points] == [3, 3, 3]
    for point in points:
        mean = [sum(values) / 3 for values in zip(*point.seeds, strict=True)]
        assert mean == pytest.approx([point.spot.x, point.spot.y])
    for svg in shown(keeping)["maps"]:
        groups = [one for one in ElementTree.fromstring(svg).iter() if one.get("data-numbers")]
        assert [group.get("data-numbers") for group in groups] == [point.numbers for point in points]
        assert all(group.get("tabindex") == "0" and group.get("aria-label") for group in groups)
        assert svg.count('class="seed"') == 9 and " style=" not in svg


def made_point(number: int, label: str = "rank", *, front: bool = False) -> MapPoint:
    spot = Spot(0.01 * number, -0.01, -5.0, 5.0, -0.02, 0.01)
    return MapPoint(f"{label} {number}", spot, [(0.0, 0.0)], f"{label} {number}: numbers", False, False, front)


@pytest.mark.parametrize("layout", [WIDE, NARROW])
def test_of_a_thousand_settings_few_are_named_and_all_are_dots(layout) -> None:
    points = [made_point(number, front=number > 980) for number in range(1000)]
    svg = gain_map(points, MapAxes("target", True, 0.05), layout)
    assert len(named_points(points)) == MOST_NAMED and named_points(points)[0] is points[0]
    assert svg.count('tabindex="0"') == MOST_NAMED and svg.count("<circle") == 1000 - MOST_NAMED
    assert len(svg) < 200_000


def test_an_interval_that_leaves_the_figure_ends_in_an_arrow_and_hostile_names_stay_text() -> None:
    points, axes = [made_point(1, HOSTILE.replace("\u0000", "")), made_point(2)], MapAxes(HOSTILE[:30], False, 0.05)
    svg = gain_map(points, axes, WIDE)
    assert leaves_figure(points, axes, WIDE)
    assert "beyond the figure" in map_caption(points, 0.05, arrows=True)
    tree = ElementTree.fromstring(svg)
    assert not [one for one in tree.iter() if one.tag.endswith("script")]
    assert svg.count('class="interval"') == 2 + 4  # two crosses, two arrows each


def test_scales_and_ticks() -> None:
    low, high = limits([0, 1], [-50, 1.2, float("nan")])
    assert low == pytest.approx(-0.69, abs=0.02) and high == pytest.approx(1.29, abs=0.02)
    assert limits([0], [])[0] < 0 < limits([0], [])[1]
    assert limits([3, 3], [])[0] < 3
    scale = Scale(0, 10, 100, 0)
    assert (scale.at(5), scale.at(99), scale.holds(99)) == (50, 0, False)
    assert ticks(-0.22, 0.53, 5) == [-0.2, 0, 0.2, 0.4]
