"""The page in a real browser: no console error, no request leaves, phone width, sort and filter, dark and light."""

from pathlib import Path

import pytest

import compare
import report
import synthetic

CHROMIUM = Path("/usr/bin/chromium")
OPTIONS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: install Debian's chromium to check the page in a browser")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    title = "A <b>made-up</b> study with a_rather_long_word_that_does_not_break_anywhere_at_all_if_nobody_tells_it_to"
    study = synthetic.make_study(folder, title=title)
    synthetic.make_results(study, folder / "results")
    compare.compare(study=study, results=folder / "results", out=folder / "results/compare")
    report.report(study=study, results=folder / "results", out=folder / "report.html")
    return (folder / "report.html").as_uri()


def open_page(browser, address: str, **options):
    """The page, with the list of what it complained about and asked for."""
    page = browser.new_context(**options).new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.append(request.url) if request.url != address else None)
    page.goto(address)
    return page, trouble


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_quiet_and_within_the_width(browser, address: str, width: int, scheme: str) -> None:
    page, trouble = open_page(browser, address, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert trouble == []
    assert page.locator("section").count() >= 6 and page.locator("figure svg").count() >= 8
    page.context.close()


def test_colours_follow_the_scheme_with_contrast(browser, address: str) -> None:
    for scheme in ("light", "dark"):
        page, _ = open_page(browser, address, color_scheme=scheme)
        for selector in ("body", "figcaption", ".answers p", "thead th", "summary"):
            assert contrast(page, selector) >= 4.5, (scheme, selector)
        page.context.close()


def contrast(page, selector: str) -> float:
    """WCAG 2 contrast of an element's text against the nearest background behind it."""
    found = page.evaluate(
        """(selector) => {
            const element = document.querySelector(selector);
            let behind = element;
            while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
            return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
        }""",
        selector,
    )
    light = sorted((luminance(colour) for colour in found), reverse=True)
    return (light[0] + 0.05) / (light[1] + 0.05)


def luminance(colour: str) -> float:
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_sort_and_filter(browser, address: str) -> None:
    page, trouble = open_page(browser, address)
    rows = page.locator("#runs-table tbody tr")
    page.fill("#filter", "learning rate 0.1")
    assert rows.locator("visible=true").count() == 1
    assert "1 of" in page.inner_text("#filter-count")
    page.fill("#filter", "")
    page.click("#runs-table thead th:nth-child(3) button")
    rates = page.locator("#runs-table tbody td:nth-child(3)").all_inner_texts()
    numbers = [float(rate) for rate in rates if rate != "–"]
    assert numbers == sorted(numbers)
    page.click("#runs-table thead th:nth-child(3) button")
    numbers = [float(t) for t in page.locator("#runs-table tbody td:nth-child(3)").all_inner_texts() if t != "–"]
    assert numbers == sorted(numbers, reverse=True)
    assert page.get_attribute("#runs-table thead th:nth-child(3)", "aria-sort") == "descending"
    assert trouble == []
    page.context.close()


def test_reads_without_scripts(browser, address: str) -> None:
    page, _ = open_page(browser, address, java_script_enabled=False)
    assert "beat their untrained base" in page.inner_text("#answer")
    assert not page.locator(".tools").is_visible()
    page.context.close()


def test_keyboard_reaches_what_scrolls(browser, address: str) -> None:
    page, _ = open_page(browser, address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".scroll:not([tabindex='0'])").count() == 0
    assert page.locator("table th:not([scope])").count() == 0
    assert page.locator("figure svg:not([aria-labelledby])").count() == 0
    page.context.close()
