"""The page of external runs: causes, what is missing, untrusted names, the command line."""

import json
import re
import sys
from pathlib import Path

import pytest

import report
from loragrid.errors import UserError
from loragrid.external.reading import read_external
from loragrid.external.sections import external_sections
from tests.fixtures.external_runs import trainer_state


@pytest.mark.parametrize(
    "heldout, rising, cause",
    [
        ([1.20, 1.26, 1.41], False, "Overfitted"),
        ([1.20, 1.10, 1.05, 1.12, 1.30], False, "Overfitted"),
        ([1.20, 1.10, 1.05], False, None),
        ([1.20, 1.26, 1.41], True, "Diverged"),
    ],
)
def test_evaluations_after_an_epoch_are_not_taken_for_the_untrained_model(
    tmp_path: Path, heldout: list[float], rising: bool, cause: str | None
) -> None:
    """A Trainer that evaluates after every epoch, and not before the first."""
    state = trainer_state([])
    for row in state["log_history"]:
        row["loss"] = 0.6 + 0.02 * row["step"] if rising else row["loss"]
    for number, loss in enumerate(heldout, start=1):
        state["log_history"].append({"step": 100 * number // len(heldout), "eval_loss": loss})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trainer_state.json").write_text(json.dumps(state))
    rows = external_sections(read_external(tmp_path / "run"), None, [], "t", tmp_path)["causes"]
    assert [found.name for row in rows for found in row["causes"]] == ([cause] if cause else [])


def test_numbers_beyond_all_floats_are_no_scores_and_break_no_page(tmp_path: Path) -> None:
    history = [{"step": 10**400, "loss": 1.0}, {"step": 1, "loss": 2.0, "eval_loss": 2.0}]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    for name, values in (("base", (1.0, 0.0)), ("tuned", (1e308, -1e308))):
        (tmp_path / name).mkdir()
        items = [{"doc_id": i, "metrics": ["acc"], "acc": values[i % 2], "resps": []} for i in range(6)]
        (tmp_path / name / "samples_t.jsonl").write_text("\n".join(map(json.dumps, items)))
    report.report_external(source=tmp_path, out=tmp_path / "page.html", base="base", title="t")
    assert "tuned" in (tmp_path / "page.html").read_text()


def test_hostile_names_are_shown_and_never_run(tmp_path: Path) -> None:
    hostile = '<script>alert(1)</script><!--<script> "onload="x \u202egnirts'
    row = {"run": hostile, hostile: 0.5, "model": hostile, "odd": hostile}
    (tmp_path / "t.json").write_text(json.dumps([row, row | {"run": "base"}]))
    results = {"results": {hostile: {f"{hostile}acc,none": 0.5, f"{hostile}acc_stderr,none": 0.1}}}
    for name in ("base", "<script>b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    (tmp_path / "<script>.json").write_text("{")
    report.report_external(source=tmp_path, out=tmp_path / "page.html", base="base", title=hostile)
    text = (tmp_path / "page.html").read_text()
    assert text.count("<script>") == 1 and "<!--" not in text and "\u202e" not in text
    assert "&lt;script&gt;alert(1)" in text and "[U+202E]" in text


def test_the_page_names_what_is_missing(folder: Path) -> None:
    (folder / "notes.json").write_text('{"hello": 1}')
    (folder / "broken.json").write_text("{")
    report.report_external(source=folder, out=folder / "out/page.html", base=None, title="My <b>Colab</b> runs")
    text = (folder / "out/page.html").read_text()
    assert "My &lt;b&gt;Colab&lt;/b&gt; runs" in text and "<b>Colab" not in text
    for part in (
        "answers item by item",
        "1 run without losses (trainer_state.json)",
        "Tokens were not counted",
        "Overfitted",
    ):
        assert part in text
    assert "another training seed may give another result" in text
    # No seed of another's: nothing is better or worse as a setting.
    assert not re.search(r'class="verdict (good|bad)"', text)
    assert "notes.json" in text and "broken.json" in text
    assert (folder / "out/page_figures/losses.svg").is_file()
    assert text.count("<script>") == 1


def test_many_scores_have_a_row_each(tmp_path: Path) -> None:
    for name, accuracy in (("base", 0.3), ("tuned", 0.6)):
        scores = {f"task_{number}": {"acc,none": accuracy, "acc_stderr,none": 0.04} for number in range(15)}
        arguments = {"model_args": "pretrained=m" + (",peft=x" if name == "tuned" else "")}
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"results": scores, "config": arguments}))
    report.report_external(source=tmp_path, out=tmp_path / "page.html", base=None, title="a_b")
    text = (tmp_path / "page.html").read_text()
    assert text.count('<th scope="row">task 3 acc</th>') == 1 and text.count("30.0% ± 4.0") == 15
    # Of single runs, as in the table, no setting is better: the models differ.
    assert "15 comparisons with “" in text and "15 differ in the desired direction" in text
    assert "<h1><bdi>a_<wbr>b</bdi></h1>" in text


def test_twice_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        report.report_external(source=folder, out=tmp_path / name / "page.html", base=None, title=None)
    assert (tmp_path / "a/page.html").read_bytes() == (tmp_path / "b/page.html").read_bytes()


@pytest.mark.parametrize("flag", ["--external", "--foreign"])
def test_command_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    """The second is the flag's earlier name."""
    out = tmp_path / "page.html"
    arguments = [flag, str(folder), "--out", str(out), "--base", "lr2e-3", "--title", "Three runs"]
    monkeypatch.setattr(sys, "argv", ["report.py", *arguments])
    report.main()
    text = out.read_text()
    assert "<title>Three runs</title>" in text and "with “<span" in text and "lr2e-3" in text


def test_help_names_the_flag_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["report.py", "--help"])
    with pytest.raises(SystemExit):
        report.main()
    text = capsys.readouterr().out
    assert "--external" in text and "--foreign" not in text


def test_a_folder_without_runs_leaves_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["report.py", "--external", str(tmp_path), "--out", str(tmp_path / "o.html")])
    with pytest.raises(UserError):
        report.main()
    assert not (tmp_path / "o.html").exists()
