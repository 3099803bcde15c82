"""The page passes axe, the accessibility checker, in both colour schemes, on a phone, and with everything unfolded."""

from pathlib import Path

import pytest

from loragrid.paths import ROOT
from tests.fixtures import synthetic
from tests.fixtures.pages import build_page

LONG = " ".join(f"word{number}" for number in range(400))
AXE = ROOT / ".venv/axe/node_modules/axe-core/axe.min.js"
VIOLATIONS = """async () => {
    const found = await axe.run(document, {resultTypes: ["violations"]});
    return found.violations.map((one) => [one.id, one.help, one.nodes.slice(0, 3).map((node) => node.html.slice(0, 200))]);
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("accessible")
    axes = {"learning_rate": [0.001, 0.01], "rank": None, "batch": None, "model": None, "seed": [1, 2]}
    build_page(folder, study=synthetic.make_study(folder, grid={"axes": axes}), items=40, prompts=2, output=LONG)
    return (folder / "reports/report.html").as_uri()


@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing(browser, address: str, scheme: str, width: int) -> None:
    if not AXE.is_file():
        pytest.skip(f"no {AXE.relative_to(ROOT)}: make .venv/.axe installs it with npm")
    # The page's policy forbids scripts that are not its own; the checker is one.
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.evaluate(Path(AXE).read_text(encoding="utf-8"))
    assert page.evaluate(VIOLATIONS) == []
    context.close()


def test_the_figure_tells_its_numbers_to_keyboard_and_pointer(browser, address: str) -> None:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.goto(address)
    first, second = page.locator(".gain-map.wide .setting").all()[:2]
    first.focus()
    assert page.inner_text(".readout") == first.get_attribute("data-numbers")
    second.locator(".mean").first.hover()
    assert page.inner_text(".readout") == second.get_attribute("data-numbers")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.numbers") == second.get_attribute("data-numbers")
    page.context.close()


@pytest.mark.parametrize("width, height", [(1280, 800), (390, 844)])
def test_the_first_screen_holds_the_figure_and_the_answers(browser, address: str, width: int, height: int) -> None:
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.goto(address)
    shown = "#answer .gain-map:visible, #answer .cards li"
    ends = [box["y"] + box["height"] for box in (one.bounding_box() for one in page.locator(shown).all())]
    # A phone holds the figure and the first answer, a desktop all of them and what to do next.
    assert len(ends) == 4 and (max(ends) if width > 1000 else sorted(ends)[1]) <= height
    page.context.close()
