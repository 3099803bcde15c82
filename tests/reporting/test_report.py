"""The page: same bytes twice, nothing from outside, untrusted text shown and never run, sentences that match the tables."""

import dataclasses
import html
import html.parser
import json
import re
import sys
import types
from pathlib import Path

import pytest

import compare
import report as stage
from loragrid import formatting
from loragrid.errors import UserError
from loragrid.records.outcomes import collect
from loragrid.reporting.page import gather
from loragrid.reporting.provenance_section import reproduce, sessions
from loragrid.runtime.atomic_files import sha256_file
from tests.fixtures import synthetic

HOSTILE = '<script>alert(1)</script><!--<script> "onload="x javascript:alert(2) \u202egnirts\u0000 </style></title>'


def build(folder: Path, *, study=None, **options):
    study = study or synthetic.make_study(folder)
    synthetic.make_results(study, folder / "results", **options)
    compare.compare(study=study, results=folder / "results", out=folder / "results/compare")
    stage.report(study=study, results=folder / "results", out=folder / "reports/report.html")
    return (folder / "reports/report.html").read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("page")
    return build(folder, prompts=3), folder


class Tags(html.parser.HTMLParser):
    """All start tags of a page with their attributes, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    return tags


SECTIONS = ["What mattered", "Learned and forgotten", "Why", "Side by side", "Costs", "What others found", "Data"]
SECTIONS += ["All runs", "How sure", "Provenance"]


def test_sections_are_there_in_order(page) -> None:
    """With a search, which has its tests elsewhere, it stands before the costs."""
    assert re.findall(r"<h2[^>]*>([^<]+)</h2>", page[0]) == SECTIONS
    assert page[0].index("Did fine-tuning help?") < page[0].index("<h2")
    links = re.findall(r'<li><a href="#[a-z]+">([^<]+)</a></li>', page[0])
    assert links == SECTIONS


def test_every_number_of_a_sortable_table_says_what_it_sorts_by(page) -> None:
    for table in re.findall(r"<table[^>]*data-sortable>.*?</table>", page[0], re.DOTALL):
        for cell, attributes in re.findall(r"(<td( [^>]*)?>)", table):
            if 'class="n"' in attributes:
                assert re.search(r' data-sort="-?[\d.e+-]*"', cell), cell


def test_the_answer_is_drawn_from_the_numbers(page) -> None:
    text = page[0]
    rows = (page[1] / "results/compare/comparisons.csv").read_text().splitlines()
    better = sum("running_plan" in row and row.endswith(",better") for row in rows)
    runs = sum("running_plan" in row for row in rows)
    assert f"{better} of {runs} scored runs beat their untrained base" in text
    assert (
        "earning rate 0.001 scored" in text and "No effect on running plan was proved for rank (with alpha) (" in text
    )
    assert "Rank (with alpha)</h3>" in text and "Compared with this caveat" in text
    assert "corrected p &lt; 0.001). What this test would find with a chance of 80%: " in text
    assert "One seed per setting" in text


def test_twice_the_same_bytes(page, tmp_path: Path) -> None:
    text, folder = page
    study = synthetic.make_study(folder)
    stage.report(study=study, results=folder / "results", out=tmp_path / "again/report.html")
    assert (tmp_path / "again/report.html").read_text() == text
    for path in sorted((folder / "reports/figures").iterdir()):
        assert (tmp_path / "again/figures" / path.name).read_bytes() == path.read_bytes()


def test_nothing_comes_from_outside(page) -> None:
    for tag, attributes in parsed(page[0]).tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert not attributes.get(name) or attributes[name].startswith("#"), (tag, attributes)
        assert "style" not in attributes and not [name for name in attributes if name.startswith("on")]
    assert "@import" not in page[0] and "url(http" not in page[0]
    policy = next(a["content"] for t, a in parsed(page[0]).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_ids_are_unique_and_links_lead_somewhere(page) -> None:
    tags = parsed(page[0]).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in tags:
        if tag == "a":
            assert attributes["href"].removeprefix("#") in ids


def test_pictures_and_tables_lie_beside_the_page(page) -> None:
    folder = page[1] / "reports"
    assert {"runs.csv", "scores.csv", "comparisons.csv", "axes.csv"} <= {p.name for p in (folder / "tables").iterdir()}
    names = {p.stem for p in (folder / "figures").glob("*.svg")}
    assert names == {p.stem for p in (folder / "figures").glob("*.png")}
    assert {"differences", "trade_off", "scores_learning_rate", "loss_rank", "loss_batch", "scores_model"} <= names


def test_failed_and_missing_runs_stay_with_reasons(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    runs = [cell.run for cell in study.cells]
    text = build(tmp_path, study=study, faults=dict(zip(runs, ("diverged", "failed", "paused", "missing", "unscored"))))
    assert "5 of 7 runs were not scored (1 diverged, 1 failed, 1 stopped early, 1 not run yet, 1 trained only)." in text
    for reason in ("loss is NaN at step 12", "needed 900 MiB", "SIGTERM at step 7", "not run yet", "not scored yet"):
        assert reason in text
    # Sessions of finished runs by their record, of others by their history; the time is the sum over all of them.
    outcomes = collect(study, tmp_path / "results")
    found = sessions(gather(study, tmp_path / "results", outcomes))
    told = [
        (row["start"], row["end"], row["seconds"], row["ended"]) for row in found["rows"] if "card" in row["device"]
    ]
    assert told == [("0", "9", "50 s", "killed"), ("5", "7", "40 s", "SIGTERM")]
    trained = sum(outcome.record.train_seconds for outcome in outcomes if outcome.record)
    assert found["total"] == formatting.duration(trained + 90)
    assert f"<summary>Sessions: {len(found['rows'])}, {found['total']} of training</summary>" in text
    assert "a &lt;card&gt;" in text


def test_an_empty_study_makes_a_page(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    stage.report(study=study, results=tmp_path / "results", out=tmp_path / "report.html")
    assert "nothing can be said" in (tmp_path / "report.html").read_text()


def test_untrusted_text_is_shown_and_never_run(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path, title=HOSTILE.replace("\u0000", ""))
    runs = [cell.run for cell in study.cells]
    synthetic.make_results(study, tmp_path / "results", faults={runs[1]: "failed"}, output=HOSTILE, prompts=3)
    results = tmp_path / "results"
    spoil_answers(results)
    for record in (results / "train").glob("*/record.json"):
        content = json.loads(record.read_text())
        content["device"]["name"] = content["base_commit"] = content["versions"]["torch"] = HOSTILE
        record.write_text(json.dumps(content | {"notes": [HOSTILE], "finished_at": HOSTILE}))
    (results / "train" / runs[1] / "failure.json").write_text(json.dumps({"message": HOSTILE}))
    for card in (results / "data").glob("*/card.json"):
        content = json.loads(card.read_text())
        content["dropped"] = {HOSTILE: {"count": 1, "first_rows": [1]}}
        content["split"]["notes"] = content["notes"] = [HOSTILE]
        content["source"] = {"path": HOSTILE}
        card.write_text(json.dumps(content))
    compare.compare(study=study, results=results, out=results / "compare")
    stage.report(study=study, results=results, out=tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    tags = parsed(text).tags
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


def test_the_data_card_is_told_whole_and_without_what_an_earlier_study_left(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    results = tmp_path / "results"
    synthetic.write_card(results / "data/gone-00000000", "gone-00000000", 5)
    first = results / "data" / min(study.data_sets) / "card.json"
    text = html.unescape(build(tmp_path, study=study))
    assert "gone-00000000" not in text
    facts = dict(re.findall(r'<tr><th scope="row">([^<]+)</th><td colspan="2">([^<]+)</td></tr>', text))
    assert facts["Left out by the sample"] == "21" and facts["Cut after the last reply"] == "6"
    assert facts["Tokens held out"] == "16\u2009000, 12\u2009500 of them carry loss"
    assert facts["Rows kept on one side of it"] == "those with equal answers and equal prompts"
    assert facts["With characters that were broken"] == "2"
    assert "<p>The template has no system turn.</p>" in text

    first.write_text(json.dumps(json.loads(first.read_text()) | {"notes": ["a token lies across"]}))
    stage.report(study=study, results=results, out=tmp_path / "again.html")
    assert f"<p>{first.parent.name}: A token lies across.</p>" in (tmp_path / "again.html").read_text()


def test_the_commands_that_make_it_again_work_in_a_checkout(page) -> None:
    study = page[1] / "made.yaml"
    (commands,) = re.findall(r"<pre>(git checkout [^<]*)</pre>", page[0])
    assert commands.splitlines() == [
        f"git checkout {synthetic.GIT['commit']}",
        "make .venv/.study  # the packages, as pinned",
        ".venv/bin/snakemake --cores 1 --config study=made.yaml",
        f"# made.yaml lies in this folder with the files that it names and has the SHA-256 {sha256_file(study)}",
    ]
    shipped = dataclasses.replace(stage.load_study("demo"), yaml={})
    material = types.SimpleNamespace(study=shipped, outcomes=[])
    assert reproduce(material).splitlines()[1] == ".venv/bin/snakemake --cores 1 --config study=demo"


def test_compare_comes_first(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    with pytest.raises(UserError, match=r"compare\.json is missing"):
        stage.report(study=study, results=tmp_path / "results", out=tmp_path / "report.html")


def test_runs_trained_by_other_code_are_marked(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    path = tmp_path / "results/train" / study.cells[2].run / "record.json"
    path.write_text(path.read_text().replace("c0de" * 4, "dead" * 4))
    compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    stage.report(study=study, results=tmp_path / "results", out=tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().count("other code</strong>") == 1


def test_what_a_backend_did_of_its_own_is_told_and_sets_runs_apart(tmp_path: Path) -> None:
    """One run whose notes name another precision than the others' notes."""
    study = synthetic.make_study(tmp_path)
    synthetic.make_results(study, tmp_path / "results")
    for number, cell in enumerate(study.cells):
        path = tmp_path / "results/train" / cell.run / "record.json"
        if path.is_file():
            notes = [
                "unsloth: weights in bfloat16, trained in fp32" if number == 2 else "unsloth: <b>weights</b> in float16"
            ]
            path.write_text(json.dumps(json.loads(path.read_text()) | {"notes": notes}))
    compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    stage.report(study=study, results=tmp_path / "results", out=tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert text.count("<small>unsloth: weights in bfloat16, trained in fp32</small>") == 1
    assert "&lt;b&gt;weights&lt;/b&gt; in float16" in text and "<b>weights</b>" not in text
    assert "Runs from different precisions of weights or training" in text
    assert "trained in fp32" in (tmp_path / "results/compare/runs.csv").read_text()


def test_command_line(page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = page[1]
    options = [
        "--study",
        str(folder / "made.yaml"),
        "--results",
        str(folder / "results"),
        "--out",
        str(tmp_path / "r.html"),
    ]
    monkeypatch.setattr(sys, "argv", ["report.py", *options])
    stage.main()
    assert (tmp_path / "r.html").read_text() == page[0]


@pytest.mark.parametrize(
    "made, wanted",
    [
        (formatting.change(0.52, "share", words=True), "+52 points"),
        (formatting.change(-0.01, "share", words=True), "−1 point"),
        (formatting.change(0.001, "share"), "0"),
        (formatting.change(-1.4982, "plain"), "−1.50"),
        (formatting.change(0.004, "share", words=True, places=formatting.decimals(0.001, 0.007)), "+0.40 points"),
        (formatting.change(0.004, "share", words=True, places=formatting.decimals(-0.02, 0.03)), "+0.4 points"),
        (formatting.between(-0.02, 0.03, "share"), "−2.0 to +3.0"),
        (formatting.between(-0.2, 0.1, "share"), "−20 to +10"),
        (formatting.detectable(0.25, "share"), "25 points"),
        (formatting.detectable(float("nan"), "share"), "none of any size"),
        (formatting.score(0.655, "share"), "66%"),
        (formatting.score(0.655, "share", 1), "65.5%"),
        (formatting.number(0.00002), "2e−5"),
        (formatting.number(123456), "123\u2009456"),
        (formatting.number(float("nan")), "–"),
        (formatting.setting(2e-4), "2e−4"),
        (formatting.setting(0.01), "0.01"),
        (formatting.p_value(0.0000001), "< 0.001"),
        (formatting.between(-1.10, -0.9, "plain"), "−1.10 to −0.90"),
        (formatting.axis_value("learning_rate", "0.0003"), "3e−4"),
        (formatting.duration(4000), "66.7 min"),
        (formatting.listed(["a", "b", "c"]), "a, b and c"),
        (formatting.visible("a\u202eb\u0007"), "a[U+202E]b[U+0007]"),
        (formatting.visible("x" * 10, 4), "xxxx … [6 more characters]"),
    ],
)
def test_wording(made: str, wanted: str) -> None:
    assert made == wanted
