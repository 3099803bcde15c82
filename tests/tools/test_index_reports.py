"""The index of all reports: a line each, the newest first, relative links, other pages by their title."""

from pathlib import Path

import pytest

from loragrid.errors import UserError
from tests.fixtures.pages import HOSTILE, Tags
from tools.index_reports import index_reports

PAGE = """<h1><bdi>{title}</bdi></h1><div id="answer" data-question="Did it?" data-short="Yes, but it forgot"
data-text="2 of 4 settings gained." data-finished="{date} 10:00 UTC" data-cost="4.6 min"></div><h1>no title</h1>"""


def test_a_line_for_each_report(tmp_path: Path) -> None:
    pages = {"old": PAGE.format(title="Old &amp; good", date="2026-01-01"), "foreign": "<h1>From elsewhere</h1>"}
    pages["new one"] = PAGE.format(title="New", date="2026-03-01")
    for name, text in pages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").write_text(text)
    text = index_reports(tmp_path).read_text()
    links = [attributes["href"] for tag, attributes in Tags(text).tags if tag == "a"]
    assert links == ["new%20one/report.html", "old/report.html", "foreign/report.html"]
    for shown in (
        "Old &amp; good",
        "From elsewhere",
        "Yes, but it forgot",
        "2 of 4 settings gained.",
        "4.6 min",
        "3 reports",
    ):
        assert shown in text
    assert "no title" not in text


def test_hostile_titles_stay_text(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/report.html").write_text(f"<h1>{HOSTILE.replace('<', '&lt;')}</h1>", encoding="utf-8")
    tags = [tag for tag, _ in Tags(index_reports(tmp_path).read_text()).tags]
    assert tags.count("script") == 1


def test_a_folder_without_reports_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no report in it \(\*/report\.html\)\. Fix: run"):
        index_reports(tmp_path)
