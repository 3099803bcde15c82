"""The page: the same bytes twice, nothing from outside, every run in it, answers that match the tables."""

import html
import json
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import compare
import report
from loragrid import formatting
from loragrid.errors import UserError, run_main
from loragrid.records.seal import changed_files, sealed_files
from loragrid.reporting.provenance_section import sessions
from tests.fixtures import synthetic
from tests.fixtures.compared import read_table
from tests.fixtures.pages import SECTIONS, Tags, build_page, compare_and_report, read_material


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("page")
    return build_page(folder, prompts=3), folder


def test_sections_are_there_in_order(page) -> None:
    """All sections but the search, which has its own tests."""
    assert tuple(re.findall(r"<h2 id=[^>]*>([^<]+)</h2>", page[0])) == SECTIONS
    assert page[0].index("Did fine-tuning help?") < page[0].index("<h2 id")
    links = re.findall(r'<li><a href="#[a-z]+">([^<]+)</a></li>', page[0])
    assert tuple(links) == SECTIONS


def test_every_number_of_a_sortable_table_says_what_it_sorts_by(page) -> None:
    for table in re.findall(r"<table[^>]*data-sortable>.*?</table>", page[0], re.DOTALL):
        for cell, attributes in re.findall(r"(<td( [^>]*)?>)", table):
            if 'class="n"' in attributes:
                assert re.search(r' data-sort="-?[\d.e+-]*"', cell), cell


def test_the_answer_is_drawn_from_the_numbers(page) -> None:
    text = html.unescape(page[0])
    rows = read_table(page[1] / "results", "comparisons").query("task == 'running_plan'")
    apart = (rows["verdict"] == "adapters differ").sum()
    assert apart and f"{apart} of {len(rows)} adapters differ from their base" in text
    assert "earning rate 0.1 scored" in text
    assert "Rank (with alpha)</h3>" in text and "<h3>Caveats</h3>" in text
    # What a test would find says nothing beside a difference that it found.
    assert "corrected p < 0.0001)." in text and "this test finds" not in text


def test_one_seed_is_said_once_at_the_top_and_no_mark_is_that_of_a_setting(page) -> None:
    text = html.unescape(page[0])
    assert "<strong>One seed.</strong> Every setting was trained under one seed" in text
    assert "grid.axes.seed: [1, 2]" in text
    assert text.index("Not of settings yet") < text.index("<strong>One seed.</strong>") < text.index("<nav")
    marks = set(re.findall(r'<span class="verdict (\w+)">([^<]+)</span>', text))
    assert ("adapters", "adapters differ") in marks
    assert not {word for _, word in marks} & {"better", "worse", "ship", "don’t ship"}
    assert "another training seed is not in them." in text
    assert "With one seed no setting can pass. With two, a model that forgot nothing passes" in text


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The page of a study with two seeds, on which the base case has 35 of 60 plans."""
    folder = tmp_path_factory.mktemp("seeds")
    study = synthetic.make_study(folder, grid={"axes": {"seed": [1, 2], "batch": None, "model": None}})
    synthetic.make_results(study, folder / "results", items=60, losses=False)
    drop_items(folder / "results/score" / next(cell.run for cell in study.cells if not cell.departs), 35)
    return html.unescape(compare_and_report(study, folder)), folder


def drop_items(scored: Path, kept: int) -> None:
    """Leave the first plans alone, as a run that was stopped while it was scored does."""
    path = scored / "items.parquet"
    table = pq.read_table(path).to_pandas()
    pq.write_table(
        pa.Table.from_pandas(table[(table["task"] != "running_plan") | (table["item"].astype(int) < kept)]), path
    )
    record = json.loads((scored / "score.json").read_text())
    record["tasks"]["running_plan"]["items"] = kept
    (scored / "score.json").write_text(json.dumps(record))


def test_settings_have_marks_families_and_the_spread_of_their_seeds(seeds) -> None:
    text = seeds[0]
    marks = set(re.findall(r'<span class="verdict (\w+)">([^<]+)</span>', text))
    assert {("good", "better"), ("bad", "worse")} <= marks and ("adapters", "adapters differ") not in marks
    assert "One seed." not in text and "Intervals hold for other items and other training seeds." in text
    for heading in ("Main target", "Retention, mean over its tasks", "Exploratory: single tasks and other measures"):
        assert f'colspan="9">{heading}</th>' in text
    assert re.search(r"Of settings: \d+ on the main target, \d+ on mean retention and \d+ exploratory\.", text)
    assert "Spread of a run’s score between training seeds" in text and re.search(r"points \(\d+ df\)", text)
    assert re.search(r"A model that forgot nothing passes with a probability of \d+% \(180 independent", text)


def test_a_comparison_on_some_of_the_items_is_marked(seeds) -> None:
    text = seeds[0]
    assert 'class="n bad">35 of 60</td>' in text
    runs = text[text.index('<table id="runs-table"') :]
    assert runs.count('<small class="bad">35 of 60 items</small>') == 1


def test_all_runs_have_seeds_p_and_what_the_test_finds(seeds) -> None:
    text, folder = seeds
    table = text[text.index('<table id="runs-table"') :].split("</table>")[0]
    assert re.search(r"Seeds of its setting</th>.*Corrected p, running plan</th>.*Test finds</th>", table)
    row = read_table(folder / "results", "comparisons").query("task == 'running_plan'").iloc[0]
    cells = f'<td class="n" data-sort="2">2</td><td class="n" data-sort="{row.p_corrected}">'
    assert table.count(cells) >= 2  # both seeds show their setting's


def test_figures_show_means_over_seeds_and_single_seeds(seeds) -> None:
    text = seeds[0]
    assert "small dots beside them: single seeds" in text and "shades their range" not in text  # no losses drawn
    summary = json.loads((seeds[1] / "results/compare/compare.json").read_text())
    first = summary["setting_scores"][0]
    assert len(first["runs"]) == 2 and first["scores"].keys() >= {"running_plan", "retention"}
    assert first["scores"]["retention"]["low"] < first["scores"]["retention"]["value"]


def test_twice_the_same_bytes(page, tmp_path: Path) -> None:
    text, folder = page
    study = synthetic.make_study(folder)
    report.report(study=study, results=folder / "results", out=tmp_path / "again/report.html")
    assert (tmp_path / "again/report.html").read_text() == text
    for path in sorted((folder / "reports/figures").iterdir()):
        assert (tmp_path / "again/figures" / path.name).read_bytes() == path.read_bytes()


def test_nothing_comes_from_outside(page) -> None:
    tags = Tags(page[0]).tags
    for tag, attributes in tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert not attributes.get(name) or attributes[name].startswith("#"), (tag, attributes)
        assert "style" not in attributes and not [name for name in attributes if name.startswith("on")]
    assert "@import" not in page[0] and "url(http" not in page[0]
    policy = next(a["content"] for _, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_ids_are_unique_and_links_lead_somewhere(page) -> None:
    tags = Tags(page[0]).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in tags:
        if tag == "a":
            assert attributes["href"].removeprefix("#") in ids


def test_figures_and_tables_are_saved_beside_the_page(page) -> None:
    folder = page[1] / "reports"
    assert {"runs.csv", "scores.csv", "comparisons.csv", "axes.csv"} <= {p.name for p in (folder / "tables").iterdir()}
    names = {p.stem for p in (folder / "figures").glob("*.svg")}
    assert names == {p.stem for p in (folder / "figures").glob("*.png")}
    assert {"differences", "trade_off", "scores_learning_rate", "loss_rank", "loss_batch", "scores_model"} <= names
    assert {"report.html", "tables/runs.csv", "figures/differences.svg"} < sealed_files(folder).keys()
    assert changed_files(folder) == []


def test_figures_of_an_earlier_report_go_and_other_files_stay(page, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    for name in ("loss_of_a_run_that_is_gone.svg", "notes.txt"):
        (tmp_path / "figures" / name).write_text("old")
    report.report(study=synthetic.make_study(page[1]), results=page[1] / "results", out=tmp_path / "report.html")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert "loss_of_a_run_that_is_gone.svg" not in names and {"notes.txt", "differences.svg"} <= names
    assert "figures/notes.txt" not in sealed_files(tmp_path)


def test_failed_and_missing_runs_stay_with_reasons(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    runs = [cell.run for cell in study.cells]
    faults = dict(zip(runs, ("diverged", "failed", "paused", "missing", "unscored")))
    text = build_page(tmp_path, study=study, faults=faults)
    assert "5 of 7 runs were not scored (1 diverged, 1 failed, 1 stopped early, 1 not run yet, 1 trained only)." in text
    for reason in ("loss is NaN at step 12", "needed 900 MiB", "SIGTERM at step 7", "not run yet", "not scored yet"):
        assert reason in text
    # Sessions of finished runs come from their records, those of others from their histories; the total is over all.
    material = read_material(study, tmp_path / "results")
    found = sessions(material)
    on_card = [row for row in found["rows"] if "card" in row["device"]]
    shown = [(row["start"], row["end"], row["seconds"], row["ended"]) for row in on_card]
    assert shown == [("0", "9", "50 s", "killed"), ("5", "7", "40 s", "SIGTERM")]
    trained = sum(outcome.record.train_seconds for outcome in material.outcomes if outcome.record)
    assert found["total"] == formatting.duration(trained + 90)
    assert f"<summary>Sessions: {len(found['rows'])}, {found['total']} of training</summary>" in text
    assert "a &lt;card&gt;" in text


def test_an_empty_study_makes_a_page(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    compare.compare(study=study, results=tmp_path / "results", out=tmp_path / "results/compare")
    report.report(study=study, results=tmp_path / "results", out=tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "nothing can be said" in text and "No run has been trained yet." in text


def test_compare_comes_first(tmp_path: Path) -> None:
    study = synthetic.make_study(tmp_path)
    with pytest.raises(UserError, match=r"compare\.json is missing"):
        report.report(study=study, results=tmp_path / "results", out=tmp_path / "report.html")


def test_a_comparison_of_other_runs_is_refused_in_one_line(page, tmp_path: Path) -> None:
    other = synthetic.make_study(tmp_path, grid={"axes": {"learning_rate": [0.5]}})
    with pytest.raises(UserError, match=r"holds runs that the study lacks \(.+\)\. Fix: run compare again"):
        report.report(study=other, results=page[1] / "results", out=tmp_path / "report.html")


def test_command_line(page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = page[1], tmp_path / "r.html"
    options = ["--study", str(folder / "made.yaml"), "--results", str(folder / "results"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["report.py", *options])
    report.main()
    assert out.read_text() == page[0]


def test_a_study_needs_its_results(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["report.py", "--study", "demo", "--out", "r.html"])
    with pytest.raises(SystemExit):
        report.main()
    assert "--study needs --results" in capsys.readouterr().err


def test_a_full_disk_is_one_line_with_what_to_free(page, small_disk: Path, capsys: pytest.CaptureFixture) -> None:
    """A page with its figures needs more than the 400 KiB of this disk."""
    study, results = synthetic.make_study(page[1]), page[1] / "results"
    with pytest.raises(SystemExit) as end:
        run_main(lambda: report.report(study=study, results=results, out=small_disk / "report.html"))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert (
        end.value.code == 1 and f"failed: {small_disk}" in line and "the disk is full (No space left on device" in line
    )
    assert "Fix: free space there (results of other studies" in line and "run the same command again" in line
    assert not list(small_disk.rglob("*.partial")) and not (small_disk / "report.html").exists()
