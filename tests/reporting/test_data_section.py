"""The data section: the whole data card, of this study's data sets only."""

import html
import json
import re
from pathlib import Path

import report
from tests.fixtures import synthetic
from tests.fixtures.pages import build_page


def test_the_data_card_is_shown_whole_and_without_data_of_an_earlier_study(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    results = tmp_path / "results"
    synthetic.write_card(results / "data/gone-00000000", "gone-00000000", 5)
    first = results / "data" / min(study.data_sets) / "card.json"
    text = html.unescape(build_page(tmp_path, study=study))
    assert "gone-00000000" not in text
    facts = dict(
        re.findall(
            r'<tr><th scope="row">([^<]+)</th><td colspan="2"><span class="muted">all:</span> ([^<]+)</td></tr>', text
        )
    )
    assert facts["Rows left out by sampling"] == "21" and facts["Rows cut after the last reply"] == "6"
    assert facts["Held-out tokens"] == "16\u202f000, of which 12\u202f500 carry loss"
    assert facts["Kept on the same side of the split"] == "rows with equal answers and equal prompts"
    assert facts["Rows with broken characters"] == "2"
    assert "<p>The template has no system turn.</p>" in text
    assert "Rows as they are trained" not in text and "Read this first" not in text

    changed = {
        "notes": ["a token lies across"],
        "warnings": ["9 of 10 training rows hold no end"],
        "examples": [{"row": 7, "segments": [["<b>Ask\u202e", False], ["<i>Answer</i>", True]]}],
        "row_notes": {"preference_rows": {"count": 8, "first_rows": [1, 2, 3, 4, 5]}},
        "unused_fields": {"rejected": 8, "messages[].refusal": 1},
    }
    first.write_text(json.dumps(json.loads(first.read_text()) | changed))
    report.report(study=study, results=results, out=tmp_path / "again.html")
    text = (tmp_path / "again.html").read_text()
    assert f"<p>{first.parent.name}: A token lies across.</p>" in text
    assert f"<li>{first.parent.name}: 9 of 10 training rows hold no end.</li>" in text
    row = '<span>&lt;b&gt;Ask[U+202E]</span><mark class="loss">&lt;i&gt;Answer&lt;/i&gt;</mark></pre>'
    assert '<p class="muted">Row 7</p>' in text and row in text
    chosen = (
        "Of 8 rows (1, 2, 3, 4, 5 …) with a preference the chosen reply is trained, and the rejected one is not used."
    )
    assert f"<p>{first.parent.name}: {chosen}</p>" in text
    assert "rejected (8 rows), messages[].refusal (1 row)" in text
