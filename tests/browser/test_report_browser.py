"""The page in a real browser: no console error, no request leaves, phone width, sort and filter, dark and light."""

import json
from pathlib import Path

import jinja2
import pytest
from markupsafe import Markup

from loragrid.formatting import duration, mebibytes, setting
from loragrid.reporting.render import TEMPLATES
from report import report_external
from tests.fixtures import synthetic, synthetic_designs
from tests.fixtures.pages import build_page, compare_and_report

RATES = [0.00002, 0.0003, 0.01, 0.1]
SECONDS = [8000.0, 14.2, 200.0, 95.0, 3600.0, 89.9, 0.4]
WORDS = " ".join(f"word{number}" for number in range(1000))
MEBIBYTES = [3000.0, 700.0, 2047.0, 2049.0, 900.0, 10_000.0, 1.5]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    title = "A <b>made-up</b> study with a_rather_long_word_that_does_not_break_anywhere_at_all_without_help"
    study = synthetic.make_study(folder, title=title, grid={"axes": {"learning_rate": RATES, "batch": None}})
    synthetic.make_results(
        study, folder / "results", prompts=4, output=f"A {'very' * 60}_long answer\n```\n{'x' * 300}\n```\n{WORDS}"
    )
    for number, cell in enumerate(study.cells):
        path = folder / "results/train" / cell.run / "record.json"
        changes = {"train_seconds": SECONDS[number], "peak_rss_mib": MEBIBYTES[number]}
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    compare_and_report(study, folder)
    return (folder / "reports/report.html").as_uri()


def open_page(browser, address: str, **options):
    """The page, and a list of its complaints and of the addresses that it requested."""
    page = browser.new_context(**options).new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.append(request.url) if request.url != address else None)
    # Long, for a machine on which much else runs.
    page.goto(address, timeout=120_000)
    return page, trouble


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_quiet_and_within_the_width(browser, address: str, width: int, scheme: str) -> None:
    page, trouble = open_page(browser, address, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.locator("#side details.prompt .wordings").locator("visible=true").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert trouble == []
    assert page.locator("section").count() >= 6 and page.locator("figure svg").count() >= 8
    page.context.close()


def test_colours_follow_the_scheme_with_contrast(browser, address: str) -> None:
    behind = {}
    for scheme in ("light", "dark"):
        page, _ = open_page(browser, address, color_scheme=scheme)
        behind[scheme] = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for selector in ("body", "figcaption", ".cards p", "thead th", "summary"):
            assert contrast(page, selector) >= 4.5, (scheme, selector)
        page.context.close()
    assert behind["light"] > 0.8 and behind["dark"] < 0.1


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


def column(page, table: str, heading: str) -> list[str]:
    """Sort a table by a column and return the column's texts."""
    heads = page.locator(f"{table} thead th").all_inner_texts()
    place = 1 + next(number for number, head in enumerate(heads) if " ".join(head.split()) == heading)
    page.click(f"{table} thead th:nth-child({place}) button")
    return page.locator(f"{table} tbody tr > :nth-child({place})").all_inner_texts()


def test_numbers_sort_by_their_value_whatever_their_unit(browser, address: str) -> None:
    page, trouble = open_page(browser, address)
    assert column(page, "#costs-table", "Training") == [duration(value) for value in sorted(SECONDS)]
    memory = [f"{mebibytes(value)} RAM" for value in sorted(MEBIBYTES)]
    assert column(page, "#costs-table", "Peak memory") == memory
    assert column(page, "#costs-table", "Peak memory") == memory[::-1]
    assert page.locator("#costs-table th[aria-sort]").get_attribute("aria-sort") == "descending"
    rates = sorted([setting(rate) for rate in RATES] + 3 * [setting(0.01)], key=lambda t: float(t.replace("−", "-")))
    assert column(page, "#runs-table", "Learning rate") == [*rates, "–", "–"]
    assert column(page, "#runs-table", "Learning rate") == [*rates[::-1], "–", "–"]  # rows without a value stay last
    assert trouble == []
    page.context.close()


def test_filter(browser, address: str) -> None:
    page, trouble = open_page(browser, address)
    page.fill("#filter", "learning rate 0.1")
    assert page.locator("#runs-table tbody tr").locator("visible=true").count() == 1
    assert "1 of 9" in page.inner_text("#filter-count")
    assert page.locator(".more").locator("visible=true").count() == 0
    assert trouble == []
    page.context.close()


def test_a_long_table_shows_its_first_rows(browser) -> None:
    body = "".join(f"<tr><th>{n}</th><td data-sort='{n}'>{n}</td></tr>" for n in range(250))
    script = (TEMPLATES / "report.js").read_text()
    table = f"<div><table data-sortable><thead><tr><th>a</th><th>b</th></tr></thead><tbody>{body}</tbody></table></div>"
    style = "<style>.beyond { display: none }</style>"
    page = browser.new_page()
    page.set_content(f"<!doctype html>{style}{table}<script>{script}</script>")
    rows = page.locator("tbody tr").locator("visible=true")
    assert rows.count() == 100
    page.click("thead th:nth-child(2) button")
    page.click("thead th:nth-child(2) button")
    assert rows.first.inner_text().split() == ["249", "249"] and rows.count() == 100
    page.click("text=Show all 250 rows")
    assert rows.count() == 250
    page.close()


MANY = """{% from "parts.html.j2" import folded, long_table %}<!doctype html><title>many</title><style>.beyond { display: none }</style>
{% set head %}<thead><tr><th>a</th><th>b</th></tr></thead>{% endset %}
{% call(n) long_table("Many", head, range(250) | list, "data-sortable") %}<tr><th>{{ n }}</th><td data-sort="{{ n }}">&lt;{{ n }}&gt;</td></tr>{% endcall %}
<details><summary>More</summary>{% call folded(101) %}<p id="late">&lt;b&gt;</p>{% endcall %}</details><script>{{ script }}</script>"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page with a table of 250 rows and with folded details of many."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    environment.filters |= {"prose": str, "is_tall": bool}
    page = tmp_path_factory.mktemp("many") / "many.html"
    page.write_text(environment.from_string(MANY).render(script=Markup((TEMPLATES / "report.js").read_text())))
    return page.as_uri()


def test_rows_become_elements_when_they_are_needed(browser, many: str) -> None:
    page, trouble = open_page(browser, many)
    rows = page.locator("tbody tr")
    assert rows.count() == 100 and page.locator("#late").count() == 0
    page.click("thead th:nth-child(2) button")
    page.click("thead th:nth-child(2) button")
    assert rows.count() == 250 and rows.first.inner_text().split() == ["249", "<249>"]
    assert rows.locator("visible=true").count() == 100
    page.click("summary")
    assert page.inner_text("#late") == "<b>"
    assert trouble == []
    page.context.close()


def test_paper_and_a_browser_without_scripts_get_all_rows(browser, many: str) -> None:
    page, trouble = open_page(browser, many)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("tbody tr").count() == 250 and page.locator("#late").count() == 1
    assert trouble == []
    page.context.close()
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(many)
    assert plain.locator("tbody tr").locator("visible=true").count() == 250
    plain.click("summary")
    assert plain.locator("#late").is_visible()
    context.close()


def test_a_figure_opens_large_and_goes_back(browser, address: str) -> None:
    page, trouble = open_page(browser, address, viewport={"width": 1280, "height": 800})
    figures = page.locator("figure svg").count()
    page.locator(".enlarge").first.click()
    assert page.locator("dialog svg").bounding_box()["width"] > 900
    assert page.locator("figure svg").count() == figures - 1
    page.keyboard.press("Escape")
    assert page.locator("dialog").is_hidden() and page.locator("figure svg").count() == figures
    assert trouble == []
    page.context.close()


WIDER_TABLES = """() => {
    const boxes = [...document.querySelectorAll(".scroll")];
    const isWider = (box) => box.scrollWidth > box.clientWidth + 1;
    const wrong = boxes.filter((box) => box.classList.contains("wider") !== isWider(box));
    return [boxes.filter(isWider).length, wrong.map((box) => box.getAttribute("aria-label"))];
}"""


def test_wide_tables_say_that_they_scroll(browser, address: str) -> None:
    page, trouble = open_page(browser, address, viewport={"width": 390, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    wider = when_marked(page)
    assert wider > 5 and trouble == []
    hint = page.evaluate("getComputedStyle(document.querySelector('.scroll.wider'), '::before').content")
    assert "Scroll sideways" in hint
    page.set_viewport_size({"width": 3000, "height": 800})
    assert when_marked(page) < wider
    page.context.close()


def when_marked(page) -> int:
    """The number of tables wider than their boxes, once these and no others are marked; marks follow within frames."""
    for _ in range(100):
        wider, wrong = page.evaluate(WIDER_TABLES)
        if not wrong:
            return wider
        page.wait_for_timeout(100)
    raise AssertionError(f"wrongly marked: {wrong}")


def test_the_name_of_a_row_stays_in_view_on_a_wide_screen(browser, address: str) -> None:
    page, _ = open_page(browser, address, viewport={"width": 900, "height": 800})
    page.evaluate("document.getElementById('runs-table').parentElement.scrollLeft = 300")
    box, name = page.locator("#runs .scroll").first, page.locator("#runs-table tbody th").first
    assert name.bounding_box()["x"] == pytest.approx(box.bounding_box()["x"], abs=1)
    page.context.close()


def test_a_name_does_not_break_at_its_hyphen(browser, address: str) -> None:
    page, _ = open_page(browser, address, viewport={"width": 320, "height": 800})
    shown = {*page.locator(".name").all_text_contents()}
    data_sets = {*page.locator("#data thead th").all_text_contents()}
    assert "llama-s" in shown and shown <= {"llama-s", "gemma-s"} | data_sets
    lines = page.evaluate("[...document.querySelectorAll('.name')].map((name) => name.getClientRects().length)")
    assert max(lines) == 1
    page.context.close()


PALETTE = """() => ["--grid", "--s0"].map(
    (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"""


@pytest.mark.parametrize("width, across", [(703, False), (1032, True)])  # A4 less its margins, upright and across
def test_paper_shows_all_within_its_width(browser, address: str, width: int, across: bool) -> None:
    page, _ = open_page(browser, address, viewport={"width": width, "height": 900}, color_scheme="dark")
    dark = page.evaluate(PALETTE)
    page.emulate_media(media="print")
    assert page.evaluate(PALETTE) == ["#dfe3e8", "#0072b2"] != dark  # ink for white paper
    assert page.evaluate(
        "[...document.querySelectorAll('.tall')].every((box) => box.scrollHeight === box.clientHeight)"
    )
    assert page.locator("details:not([open])").count() > 4
    hidden = page.evaluate(
        """() => [...document.querySelectorAll("details:not([open]) > :not(summary)")]
                  .filter((one) => !one.checkVisibility({contentVisibilityAuto: true}) || one.offsetHeight === 0).length"""
    )
    assert hidden == 0
    wide = page.evaluate(
        """() => [...document.querySelectorAll(".scroll")].filter((box) => box.scrollWidth > box.clientWidth + 1)
                  .map((box) => box.closest("section").id)"""
    )
    assert set(wide) <= (set() if across else {"costs", "runs"})
    if across:
        assert page.pdf(prefer_css_page_size=True).count(b"MediaBox [0 0 841.") >= 2
    page.context.close()


def test_an_answer_of_a_thousand_words_scrolls_in_its_box_and_is_copied_whole(browser, address: str) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    page, trouble = open_page(browser, address, viewport={"width": 1280, "height": 800}, permissions=permissions)
    box = page.locator("#side .tall").first
    assert box.bounding_box()["height"] < 400 and box.evaluate("(one) => one.scrollHeight") > 500
    answer = page.locator("#side .answer:has(.tall)").first
    answer.locator(".copy").click()
    answer.locator("text=Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").endswith(WORDS)
    assert trouble == []
    page.context.close()


def test_a_figure_opens_wider_than_a_phone(browser, address: str) -> None:
    page, _ = open_page(browser, address, viewport={"width": 390, "height": 844})
    page.locator(".enlarge").first.click()
    dialog = page.locator("dialog")
    assert dialog.locator("svg").bounding_box()["width"] > 700
    assert dialog.evaluate("(one) => one.scrollWidth > one.clientWidth")
    assert dialog.locator("button").bounding_box()["x"] < 390
    page.context.close()


def test_a_page_of_external_runs_with_many_scores_fits_on_paper(browser, tmp_path: Path) -> None:
    for number, name in enumerate(["base", *(f"run_{n}" for n in range(8))]):
        scores = {f"task_{task}": {"acc,none": 0.3, "acc_stderr,none": 0.04} for task in range(30)}
        arguments = {"model_args": "pretrained=m" + (f",peft=x{number}" if number else "")}
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"results": scores, "config": arguments}))
    report_external(source=tmp_path, out=tmp_path / "page.html", base=None, title=None)
    page, trouble = open_page(browser, (tmp_path / "page.html").as_uri(), viewport={"width": 703, "height": 900})
    assert page.locator("#runs-table").is_visible() and not page.locator(".on-paper").first.is_visible()
    page.emulate_media(media="print")
    wide = "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth + 1).length"
    assert page.evaluate(wide) == 0 and page.locator(".on-paper").count() == 2
    assert trouble == []
    page.context.close()


def test_reads_without_scripts(browser, address: str) -> None:
    page, _ = open_page(browser, address, java_script_enabled=False)
    assert "Not of settings yet" in page.inner_text("#answer") and page.locator(".setting").first.is_visible()
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


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (synthetic_designs.factorial_study, {"effect": synthetic_designs.moving_rate}),
        (synthetic_designs.sizes_study, {"effect": synthetic_designs.learning}),
        (synthetic_designs.along_study, {"path": synthetic_designs.early_gain}),
    ],
)
def test_other_designs_are_quiet_and_within_the_width(browser, tmp_path: Path, make, options: dict) -> None:
    file = tmp_path / "page.html"
    file.write_text(build_page(tmp_path, study=make(tmp_path), items=40, losses=False, **options))
    for width in (1280, 390):
        page, trouble = open_page(browser, file.as_uri(), viewport={"width": width, "height": 800})
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert trouble == [] and page.locator("figure svg").count() >= 3
        page.context.close()
