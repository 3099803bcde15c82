"""The page's section on what would decide the open questions."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.reporting.next_section import next_section
from loragrid.reporting.render import render


def found(**changes: Any) -> dict[str, Any]:
    """next.json of five questions, of which four have a way."""
    options = [
        {
            "id": f"option-{number}",
            "text": f"{number} more seeds for rank <b>{number}</b>",
            "hours": 0.5 * number,
            "hours_per_closed": 0.4 * number,
            "closes": {f"axis:rank:{number}": 0.9 + 0.02 * number},
        }
        for number in range(1, 5)
    ]
    questions = [
        {
            "name": f"axis:rank:{number}",
            "text": f"Does rank {number} differ from 16?",
            "so_far": "+1 point (−3 to +5)",
            "cheapest": f"option-{number}" if number < 5 else None,
        }
        for number in range(1, 6)
    ]
    made = {"schema": 1, "margin": 0.05, "device": "a card", "assumed_spread": False}
    return made | {"questions": questions, "options": options} | changes


def section(folder: Path, content: dict[str, Any] | None) -> dict[str, Any] | None:
    if content is not None:
        (folder / "next").mkdir()
        (folder / "next" / "next.json").write_text(json.dumps(content))
    return next_section(SimpleNamespace(results=folder))


def page_of(shown: dict[str, Any] | None) -> str:
    no_figures = SimpleNamespace(styles=SimpleNamespace(css=str), svgs={})
    return render("next.html.j2", {"next": shown, "names": []}, no_figures)


def test_the_three_cheapest_ways_are_shown_with_their_chances(tmp_path: Path) -> None:
    shown = section(tmp_path, found())
    assert [row["question"] for row in shown["rows"]] == [f"Does rank {number} differ from 16?" for number in (1, 2, 3)]
    assert shown["rows"][0] | {"option": ""} == {
        "question": "Does rank 1 differ from 16?",
        "so_far": "+1 point (−3 to +5)",
        "option": "",
        "chance": "92%",
        "time": "30 min",
        "per_closed": "24 min",
    }
    assert (shown["open"], shown["more"]) == ("5 open questions", 1)
    assert shown["without"] == "No single step is likely to close the other one."
    page = page_of(shown)
    assert "What would decide it" in page and "rank &lt;b&gt;1" in page and "budget_hours=4" in page
    assert "seeds vary is assumed" not in page


def test_what_is_assumed_is_said(tmp_path: Path) -> None:
    assert "how much seeds vary is assumed" in page_of(section(tmp_path, found(assumed_spread=True)))


def test_nothing_is_certain(tmp_path: Path) -> None:
    content = found()
    content["options"][0]["closes"]["axis:rank:1"] = 1.0
    assert section(tmp_path, content)["rows"][0]["chance"] == "99%"


@pytest.mark.parametrize("content", [None, {"questions": [], "options": []}])
def test_without_a_question_there_is_no_section(tmp_path: Path, content: dict[str, Any] | None) -> None:
    shown = section(tmp_path, content if content is None else found(**content))
    assert "<section" not in page_of(shown)


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"next\.json: written by another version of next\. Fix: run next again$"):
        section(tmp_path, found(schema=0))
