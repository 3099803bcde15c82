"""The app's other tabs in a real browser, hostile text, and the width of a phone."""

import re

import pytest

from tests.fixtures.app_pages import BASE_PLAN, fill, open_page, shown, write
from tests.fixtures.app_toys import HOSTILE, PLAN


def test_hostile_text_stays_text(browser, served, scripted) -> None:
    scripted.tuned, scripted.base = HOSTILE, HOSTILE
    page, trouble = open_page(browser, served[0])
    fill(page, name="<img src=x onerror=window.hit=1>")
    page.click("text=More details")
    page.get_by_label("Anything else").fill("<script>window.hit=1</script> ${window.hit=1}")
    write(page)
    assert shown(page, "tuned") == HOSTILE
    assert "<script>window.hit=1</script>" in page.inner_text("table.plan")
    assert "${window.hit=1}" in page.inner_text("table.plan") and "<img src=x" in page.inner_text("#summary")
    page.get_by_role("tab", name="Compare").click()
    page.locator("#prompt textarea").fill("<b>x</b>")
    page.click("#ask")
    page.wait_for_selector("text=✓ 2 answers")
    assert shown(page, "answer_2") == HOSTILE
    assert page.evaluate("window.hit") is None and trouble == []


def test_compare_asks_the_chosen_models_with_one_prompt(browser, served) -> None:
    page, _ = open_page(browser, served[0])
    page.get_by_role("tab", name="Compare").click()
    page.click("#ask")
    page.wait_for_selector("text=Please write a prompt.")
    page.get_by_label("Pick a rephrased prompt of the study").click()
    page.get_by_role("option", name="p1: A rephrased prompt").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'A rephrased prompt'")
    page.locator("#model_3 input").click()
    page.get_by_role("option", name="toy, base case").last.click()
    page.click("#ask")
    page.wait_for_selector("text=✓ 3 answers, seed 3407")
    assert [shown(page, f"answer_{i}") for i in (1, 2, 3)] == [BASE_PLAN, PLAN, PLAN]
    for i in (1, 2, 3):
        assert re.fullmatch(r"\d+ tokens in [\d.]+ s \(\d+ tokens/s\), finished", page.inner_text(f"#cost_{i}"))


def test_study_tab_shows_the_report_in_a_sandbox(browser, served) -> None:
    page, trouble = open_page(browser, served[0])
    left: list[str] = []
    page.route("http://elsewhere.invalid/**", lambda route: (left.append(route.request.url), route.abort()))
    page.get_by_role("tab", name="Study").click()
    frame = page.frame_locator("iframe.report")
    frame.get_by_role("heading", name="The toy's report").wait_for()
    inner = next(frame for frame in page.frames if frame != page.main_frame)
    assert inner.title() == "shut in" and page.evaluate("window.hit") is None
    inner.click("text=to the end")
    page.wait_for_timeout(300)
    assert inner.evaluate("window.scrollY") > 1000 and inner.get_by_role("heading").count() == 1
    # The frame's policy stops the picture's request before it reaches the network, where `left` would record it. The browser
    # reports such a request as a request, as a line on the console, or both.
    assert left == []
    expected = ("Content Security Policy", "Blocked a frame", "http://elsewhere.invalid/x.png")
    assert [line for line in trouble if not any(part in line for part in expected)] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_usable_at_a_phones_width(browser, served, scheme: str) -> None:
    page, trouble = open_page(
        browser, served[0], viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True
    )
    fill(page)
    write(page)
    assert trouble == []
    for tab in ("Compare", "Study", "Plan"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for box in (page.locator("#write"), page.locator("#tuned textarea"), page.locator("#files a").first):
        place = box.bounding_box()
        assert place["x"] >= 0 and place["x"] + place["width"] <= 390 and place["height"] >= 32
