"""Text from models, records and data on the page: shown unchanged, never run; names that stay on one line."""

import json
import re
from pathlib import Path

import pytest

from loragrid.reporting.render import keep_whole
from tests.fixtures import synthetic
from tests.fixtures.pages import HOSTILE, Tags, compare_and_report


def test_untrusted_text_is_shown_and_never_run(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path, title=HOSTILE.replace("\u0000", ""))
    runs, results = [cell.run for cell in study.cells], tmp_path / "results"
    synthetic.make_results(study, results, faults={runs[1]: "failed"}, output=HOSTILE, prompts=3)
    spoil_answers(results)
    spoil_records(results)
    (results / "train" / runs[1] / "failure.json").write_text(json.dumps({"message": HOSTILE}))
    text = compare_and_report(study, tmp_path)
    tags = Tags(text).tags
    assert [tag for tag, _ in tags].count("script") == 1 and [tag for tag, _ in tags].count("style") == 1
    assert "\u202e" not in text and "\u0000" not in text and "[U+202E]" in text
    assert "<!--" not in text
    side = re.search(r'<section id="side".*?</section>', text, re.DOTALL)[0]
    for place in ("prompt", "original", "reference", "answer", "error"):
        assert f"{place} &lt;script&gt;alert(1)&lt;/script&gt;" in side
    assert "more characters]" in side and len(text) < 2_000_000  # an answer of a megabyte is cut
    assert not [a for _, a in tags if "javascript:" in str(a.get("href"))]


def spoil_answers(results: Path) -> None:
    """Hostile text everywhere in the answers, one of a megabyte among them."""
    for path in (results / "score").glob("*/answers.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["reference"] = f"reference {HOSTILE}\n```{HOSTILE}\ncode {HOSTILE}\n```"
            for asked in ("prompt", "original"):
                row[asked] |= {"question": f"{asked} {HOSTILE}", "answer": f"answer {HOSTILE}{'x' * 1_000_000}"}
        rows[1]["prompt"]["error"] = f"error {HOSTILE}"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def spoil_records(results: Path) -> None:
    """Hostile text in all texts of the records and data cards."""
    for record in (results / "train").glob("*/record.json"):
        content = json.loads(record.read_text())
        content["device"]["name"] = content["base_commit"] = content["versions"]["torch"] = HOSTILE
        record.write_text(json.dumps(content | {"notes": [HOSTILE], "finished_at": HOSTILE}))
    for card in (results / "data").glob("*/card.json"):
        content = json.loads(card.read_text())
        content["dropped"] = {HOSTILE: {"count": 1, "first_rows": [1]}}
        content["split"]["notes"] = content["notes"] = [HOSTILE]
        content["source"] = {"path": HOSTILE}
        card.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("llama-s won", '<span class="name">llama-s</span> won'),
        ("llama-s-2 and “llama-s”", '<span class="name">llama-s-2</span> and “<span class="name">llama-s</span>”'),
        ("llama-small and my-llama-s", "llama-small and my-llama-s"),  # other names that contain this one
        ("held-out gemma", "held-out gemma"),
        ("<b>llama-s", '&lt;b&gt;<span class="name">llama-s</span>'),
        ("a&b-c wins", '<span class="name">a&amp;b-c</span> wins'),
        ("x-" + 30 * "y", "x-" + 30 * "y"),  # a long name may break
        ("llama-s\u202e", '<span class="name">llama-s</span>[U+202E]'),
    ],
)
def test_names_stay_on_one_line(text: str, wanted: str) -> None:
    assert str(keep_whole(text, ["llama-s", "llama-s-2", "gemma", "a&b-c", "x-" + 30 * "y"])) == wanted
