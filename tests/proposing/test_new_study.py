"""A study file for data and a model of one's own: any usual file is read, and what is written fits both."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from loragrid.data.rendering.encoder import Encoder
from loragrid.errors import UserError
from loragrid.models.find_shape import find_shape
from loragrid.paths import ROOT
from loragrid.planning import gpu_cards
from loragrid.proposing import data_findings
from loragrid.proposing import new_study as new_study_module
from loragrid.proposing.choices import data_note, fit_memory, propose
from loragrid.proposing.costs import costs_of, device_of, memory_mib, needed_mib
from loragrid.proposing.data_findings import read_data
from loragrid.proposing.model_findings import CHAT_TEMPLATE, ModelFindings, has_chat_template
from loragrid.proposing.new_study import new_study, write_study
from loragrid.proposing.proposal import Proposal, rate_text
from loragrid.proposing.request import Request
from loragrid.proposing.time_limit import FEWEST_UPDATES
from loragrid.study.study_file import Study, load_study
from tests.proposing.conftest import ROWS, write_rows

RequestFor = Callable[..., Request]
COMMAND = "make new-study"


def loaded(text: str, tmp_path: Path) -> Study:
    (tmp_path / "mine.yaml").write_text(text)
    return load_study(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("name", ["my.csv", "my.tsv", "my.json", "my.jsonl", "my.jsonl.gz", "folder"])
@pytest.mark.parametrize("names", [("question", "answer"), ("Prompt", "Completion")])
def test_three_hundred_rows_in_any_usual_file_are_read(
    tmp_path: Path, base: ModelFindings, name: str, names: tuple[str, str]
) -> None:
    file = write_rows(tmp_path / name, names=names)
    found = read_data({"path": str(file)}, {}, base.template, folder=tmp_path)
    assert (found.rows_read, found.distinct, found.heldout_rows, found.train_rows) == (300, 300, 60, 240)
    assert found.form == "/".join(names).lower() and not found.columns and not found.left_out
    assert len(found.lengths) == 300 and 20 < np.mean(found.tokens) < 80


def test_plain_text_is_read_from_a_file_and_a_folder(tmp_path: Path, base: ModelFindings) -> None:
    (tmp_path / "my.jsonl").write_text("".join(json.dumps({"text": " ".join(row)}) + "\n" for row in ROWS))
    (tmp_path / "texts").mkdir()
    for number, row in enumerate(ROWS[:40]):
        (tmp_path / "texts" / f"{number}.txt").write_text("\n".join(row))
    for name, rows in (("my.jsonl", 300), ("texts", 40)):
        found = read_data({"path": str(tmp_path / name)}, {}, base.template, folder=tmp_path)
        assert (found.form, found.rows_read, found.heldout_rows) == ("text", rows, rows // 5)


def test_the_file_is_a_short_study_of_this_data_and_this_model(tmp_path: Path, request_for: RequestFor) -> None:
    study = new_study(request_for(write_rows(tmp_path / "my.csv"), learning_rates=(1e-4, 2e-4, 1e-3)), command=COMMAND)
    made = loaded(study.text, tmp_path)
    assert made.grid.axes == {"learning_rate": (1e-4, 2e-4, 1e-3), "seed": (1, 2, 3)} and len(made.cells) == 9
    assert made.base_case.learning_rate == 2e-4
    assert (made.scoring.target, made.scoring.retention, made.scoring.qualitative) == (("heldout_loss",), (), None)
    assert made.tune is None and made.likely_slips == []
    assert made.heldout.rows == 60 and made.plan.rows == 240
    assert "running" not in study.text and "world" not in study.text
    lines = study.text.splitlines()
    assert len(lines) < 50 and max(map(len, lines)) < 180
    # What the demo's study compares is not what a user's data ask.
    assert not {"rank", "model"} & made.grid.axes.keys()


def test_labels_are_usable_and_every_row_is_accounted_for(tmp_path: Path, request_for: RequestFor) -> None:
    rows = [(question, "yes" if number % 2 else "no") for number, (question, _) in enumerate(ROWS)]
    study = new_study(request_for(write_rows(tmp_path / "my.csv", rows=[*rows, *rows[:30]])), command=COMMAND)
    assert "60 rows held out, 240 left for training" in study.lines
    assert any(line.startswith("100% of the held-out rows have an answer under 20 char") for line in study.lines)
    for line in ("330 rows, 300 of them used, ", "# Left out: 30 rows equal to an earlier one.\n"):
        assert line in study.text


def test_only_a_beginning_of_very_long_rows_is_tokenised(
    tmp_path: Path, base: ModelFindings, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = " ".join(f"word {number}" for number in range(14_000))
    rows = [(question, f"{answer} {text}") for question, answer in ROWS[:20]]
    seen = []
    encode = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, chats: (seen.append(len(chats)), encode(self, chats))[1])
    monkeypatch.setattr(data_findings, "in_own_process", lambda function, argument, limit: function(argument))
    file = write_rows(tmp_path / "my.jsonl", rows=rows)
    found = read_data({"path": str(file)}, {}, base.template, folder=tmp_path)
    assert found.distinct == 20 and sum(seen) == len(found.lengths) == 10
    whole = len(base.template.tokenizer(rows[0][1])["input_ids"])
    assert 0.8 < found.tokens[0] / whole <= found.tokens[-1] / whole < 1.2
    assert found.cut_share(2048) == 1 and found.lost_share(2048) == 0


def test_prompts_that_leave_no_room_for_a_reply_are_said(tmp_path: Path, request_for: RequestFor) -> None:
    long = [(f"{question} {'and more ' * 600}", answer) for question, answer in ROWS]
    study = new_study(request_for(write_rows(tmp_path / "my.csv", rows=[*ROWS[:150], *long[150:]])), command=COMMAND)
    assert "warning: 50% of the rows are left out: their prompts alone have 512 tokens or more" in study.lines
    assert "50.0% of the rows are longer and are cut, 50.0% left out as no reply is left" in study.text
    with pytest.raises(UserError, match=r"DATA: the prompts are longer than the 512 tokens of a row, .* Fix: shorten"):
        new_study(request_for(write_rows(tmp_path / "all.csv", rows=long)), command=COMMAND)


def test_what_is_printed_says_what_the_study_takes_and_can_find(tmp_path: Path, request_for: RequestFor) -> None:
    lines = new_study(request_for(write_rows(tmp_path / "my.csv")), command=COMMAND).lines
    text = "\n".join(lines)
    assert "my.csv: 300 rows, in the form question/answer; " in text
    assert "60 rows held out, 240 left for training" in text
    assert "9 runs: learning rates 1.0e-4, 3.0e-4 and 1.0e-3, each with seeds 1, 2 and 3; 180 updates a run" in text
    (takes,) = [line for line in lines if line.startswith("Takes about ")]
    assert " on this CPU (" in takes and takes.endswith(" MiB of memory")
    # Python and its libraries are most of it.
    assert 600 < int(takes.split()[-4].replace(",", "")) < 800
    assert any(line.startswith("Can find: a difference between two settings of ") for line in lines)


def test_three_rows_make_a_study_that_says_what_it_cannot_find(tmp_path: Path, request_for: RequestFor) -> None:
    study = new_study(request_for(write_rows(tmp_path / "my.csv", rows=ROWS[:3])), command=COMMAND)
    assert loaded(study.text, tmp_path).heldout.rows == 1
    assert "Can find: no difference of the held-out loss: one held-out row is too few" in study.lines


def test_a_single_learning_rate_asks_whether_fine_tuning_helps(tmp_path: Path, request_for: RequestFor) -> None:
    study = new_study(request_for(write_rows(tmp_path / "my.csv"), learning_rates=(2e-4,)), command=COMMAND)
    made = loaded(study.text, tmp_path)
    assert set(made.grid.axes) == {"seed"} and made.title == "Does fine-tuning llama-s on my.csv help?"
    assert any(line.startswith("Can find: a difference from the base of ") for line in study.lines)
    assert any(line.startswith("3 runs: learning rate 2.0e-4, each with seeds 1, 2 and 3") for line in study.lines)


def test_nothing_is_overwritten(tmp_path: Path, request_for: RequestFor) -> None:
    request = request_for(write_rows(tmp_path / "my.csv"))
    study = new_study(request, command=COMMAND)
    file = write_study(study)
    assert file == tmp_path / "studies" / "mine.yaml" and file.read_text() == study.text
    for again in (lambda: new_study(request, command=COMMAND), lambda: write_study(study)):
        with pytest.raises(UserError, match=r"NAME: .*mine\.yaml is there already\. Fix: .* NAME=mine-2\."):
            again()
    assert file.read_text() == study.text


def test_names_in_data_cannot_write_into_the_file(tmp_path: Path, request_for: RequestFor) -> None:
    file = write_rows(tmp_path / "a: b\n# {x}\nscoring: {limit: 1}.csv")
    study = new_study(request_for(file), command=COMMAND)
    made = loaded(study.text, tmp_path)
    assert made.yaml["data"][made.base_case.data]["source"]["path"] == str(file) and made.scoring.limit is None


def test_two_columns_of_text_are_taken_as_prompt_and_reply(tmp_path: Path, request_for: RequestFor) -> None:
    rows = [(number, *row) for number, row in enumerate(ROWS)]
    file = write_rows(tmp_path / "my.csv", names=("nummer", "frage", "antwort"), rows=rows)
    study = new_study(request_for(file), command=COMMAND)
    (entry,) = loaded(study.text, tmp_path).yaml["data"].values()
    assert entry["columns"] == {"prompt": "frage", "reply": "antwort"}
    assert "# A guess: frage is the prompt and antwort is the reply; COLUMNS changes it." in study.text
    assert "# Not used: nummer.\n" in study.text


def test_a_guess_from_what_may_be_the_first_row_says_so(tmp_path: Path, request_for: RequestFor) -> None:
    file = write_rows(tmp_path / "my.csv", names=("Say 12", "It is 12"))
    assert "# If these are values of a first row" in new_study(request_for(file), command=COMMAND).text


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"text": q, "label": "yes", "id": n} for n, (q, _) in enumerate(ROWS)], {"prompt": "text", "reply": "label"}),
        ([{"Frage": q, "Antwort": a if n % 3 else "7"} for n, (q, a) in enumerate(ROWS[:6])], {"prompt": "Frage", "reply": "Antwort"}),
        ([{"sentence": q} for q, _ in ROWS], {"text": "sentence"}),
        ([{"text": q, "source": "web", "length": 3} for q, _ in ROWS], {}),
    ],
)  # fmt: skip
def test_columns_are_guessed(tmp_path: Path, base: ModelFindings, rows: list, columns: dict) -> None:
    file = tmp_path / "my.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_data({"path": str(file)}, {}, base.template, folder=tmp_path)
    assert found.columns == columns and set(found.unused) == rows[0].keys() - set(columns.values()) - {"text"}
    if not columns:
        assert 'Not used: length and source; if that is the reply to the text, set COLUMNS="prompt=text ' in data_note(
            found
        )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            '{"' + "What is this? " * 9 + '": "a", "q": "b"}',
            r'a text is in the place of a field name .* \[{"question"',
        ),
        (
            '{"sentence": "How nice", "label": 1}',
            r"no column for the reply: beside sentence there are only numbers .*\(label\)\. Fix: .* text",
        ),
        (
            '{"question": ["Who?", "Why?"], "answer": ["I", "So"]}',
            r"none of its 1 rows .*\(1 not text .*\. Fix: write prompts and",
        ),
    ],
)
def test_rows_that_are_none_are_one_line(tmp_path: Path, base: ModelFindings, text: str, line: str) -> None:
    (tmp_path / "my.json").write_text(text)
    with pytest.raises(UserError, match=line):
        read_data({"path": str(tmp_path / "my.json")}, {}, base.template, folder=tmp_path)


@pytest.mark.parametrize(
    ("names", "rows", "line"),
    [
        (
            ("a", "b", "c"),
            [(*row, "x y") for row in ROWS],
            r'it is unclear which columns are prompt and reply \(a, b, c\)\. Fix: .*COLUMNS="prompt=a reply=b"\.',
        ),
        (
            ("premise", "hypothesis", "label"),
            [(*row, number % 2) for number, row in enumerate(ROWS)],
            r"it is unclear which columns are prompt and reply \(premise, hypothesis, label\)",
        ),
        (
            ROWS[0],
            [(f"{q} {q}", a) for q, a in ROWS],
            r"the first line seems to be a row and not the column names \(Town 0",
        ),
    ],
)
def test_columns_that_cannot_be_told_are_asked_for(
    tmp_path: Path, base: ModelFindings, names: tuple, rows: list, line: str
) -> None:
    names = tuple(f"{name} of a land that is far away, and so on" if " " in name else name for name in names)
    file = write_rows(tmp_path / "my.csv", names=names, rows=rows)
    with pytest.raises(UserError, match=line):
        read_data({"path": str(file)}, {}, base.template, folder=tmp_path)


def test_few_hours_buy_fewer_tokens_and_then_less_of_the_rest(tmp_path: Path, request_for: RequestFor) -> None:
    file = write_rows(tmp_path / "my.csv")
    whole = new_study(request_for(file), command=COMMAND)
    assert "budget: {epochs: 3}" in whole.text
    costs = costs_of(_proposal(file, request_for, tmp_path), tmp_path)
    # Half of the training; the other jobs take as long as before.
    half = costs.hours - costs.totals["hours"] / 2
    less = loaded(new_study(request_for(file, hours=half), command=COMMAND).text, tmp_path)
    assert less.base_case.budget.tokens < 3 * 240 * 60 and "Longer training, to save time: " in less.left_out
    one_rate = loaded(new_study(request_for(file, hours=1e-6), command=COMMAND).text, tmp_path)
    assert (
        set(one_rate.grid.axes) == {"seed"} and len(one_rate.cells) == 3 and "other learning rates" in one_rate.left_out
    )
    shortest = new_study(request_for(file, hours=1e-6, learning_rates=(1e-4, 1e-3)), command=COMMAND)
    least = loaded(shortest.text, tmp_path)
    assert len(least.grid.axes["seed"]) == 2 and least.base_case.evaluations == 2
    assert least.base_case.budget.tokens >= 0.9 * FEWEST_UPDATES * least.base_case.per_device * least.plan.row_tokens
    assert "It still takes longer" in least.left_out
    assert "Can find: no difference of the held-out loss: 2 seeds a setting are too few" in shortest.lines


def test_on_a_cpu_a_first_page_comes_within_ten_minutes_and_more_hours_are_offered(
    tmp_path: Path, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_cards, "product_tflops", lambda threads: 0.0005)
    study = new_study(request_for(write_rows(tmp_path / "my.csv")), command=COMMAND)
    (takes,) = [line for line in study.lines if line.startswith("Takes about ")]
    assert 5 < int(takes.split()[2]) <= 10
    assert re.search(r"HOURS=2 proposes 9 runs of 180 updates, about .*, which can find a difference ", study.lines[-1])


def _proposal(file: Path, request_for: RequestFor, folder: Path, card: str | None = None) -> Proposal:
    request = request_for(file, card=card)
    base = new_study_module.read_model({}, key="")
    data = read_data({"path": str(file)}, {}, base.template, folder=folder)
    return propose(request, data, base, device_of(card), command=COMMAND)


def test_a_batch_fits_the_card_and_a_model_that_does_not_is_refused(tmp_path: Path, request_for: RequestFor) -> None:
    proposal = _proposal(write_rows(tmp_path / "my.csv"), request_for, tmp_path, card="T4")
    device = device_of("T4")
    assert "precision" not in proposal.run and proposal.card == "T4" and proposal.run["batch"] == [4, 1]
    shape = find_shape(load_study("t4").models["llama-3b"])
    long = replace(proposal, run=dict(proposal.run) | {"batch": [8, 1], "max_length_tokens": 2048})
    fitting = fit_memory(long, shape, device)
    rows, accumulation = fitting.run["batch"]
    assert rows * accumulation == 8 and needed_mib(fitting, shape, device) <= memory_mib(device)
    with pytest.raises(
        UserError, match=r"MODEL: a run needs [\d,]+ MiB even with one row at a time, and T4 has 14,913 "
    ):
        fit_memory(long, replace(shape, layers=32 * shape.layers), device)


def test_a_model_without_a_chat_template_gets_one(tmp_path: Path) -> None:
    assert has_chat_template(ROOT / "resources/models/llama-s") and (ROOT / CHAT_TEMPLATE).is_file()
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert not has_chat_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert has_chat_template(tmp_path)


def test_rates_are_written_as_every_yaml_reads_them() -> None:
    for rate, text in ((2e-4, "2.0e-4"), (1.25e-3, "1.25e-3"), (0.1, "1.0e-1"), (3.0, "3.0e0")):
        assert rate_text(rate) == text
        assert load_rate(text) == rate


def load_rate(text: str) -> float:
    # YAML 1.1 needs the sign; the study file's reader does not.
    return yaml.safe_load(text.replace("e0", "e+0"))
