"""The command line of a new study: what is missing is asked for on a terminal, and named elsewhere."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loragrid.errors import UserError, run_main
from loragrid.paths import ROOT
from loragrid.proposing.new_study import NewStudy
from loragrid.proposing.request import Request, study_columns
from tools import new_study as tool

ASKED = Request(data="my.csv", model="owner/name", name="my", learning_rates=(1e-4, 2e-4), card="T4", hours=0.5)


@pytest.fixture
def proposed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Request]:
    """The requests that reach the proposal, in whose place nothing is read."""
    requests = []

    def propose(request: Request, *, command: str) -> NewStudy:
        requests.append(request)
        return NewStudy(request.name, f"# {command}\n", ("9 runs",), 2)

    monkeypatch.setattr(tool, "new_study", propose)
    monkeypatch.setattr(tool, "write_study", lambda study: study.file)
    return requests


def call(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["new_study.py", *options])
    run_main(tool.main)


def test_options_become_a_request_and_the_command_that_runs_it_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, proposed: list[Request]
) -> None:
    options = ["--data", "my.csv", "--model", "owner/name", "--lr", "2e-4 1e-4", "--card", "t4", "--hours", "0.5"]
    call(monkeypatch, *options)
    assert proposed == [ASKED]
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "  9 runs" and printed.out.endswith("  make study STUDY=my CORES=2\n")
    assert printed.err == "new study: config/studies/my.yaml\n"


def test_what_is_missing_is_asked_for_on_a_terminal(monkeypatch: pytest.MonkeyPatch, proposed: list[Request]) -> None:
    answers = iter(["", "rows/my.csv", "owner/name"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    call(monkeypatch)
    assert proposed == [Request(data="rows/my.csv", model="owner/name", name="my")]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ([], "error: DATA: missing. Fix: make new-study DATA=my.csv MODEL=path-or-hub-id [LR="),
        (["--data", "my.csv"], "error: MODEL: missing. Fix: make new-study "),
        (["--data", "a", "--model", "b", "--hours", "-1"], "error: HOURS: not a number above 0 ('-1'). Fix: "),
    ],
)
def test_without_a_terminal_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, options: list[str], line: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *options)
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and printed.startswith(line) and printed.count("\n") == 1


def test_the_command_in_the_file_asks_for_the_same_study() -> None:
    command = tool.command_of(ASKED)
    assert command == 'make new-study DATA=my.csv MODEL=owner/name LR="0.0001 0.0002" CARD=T4 HOURS=0.5'
    odd = Request(data="my rows;$(x).csv", model="b", name="my")
    assert "DATA='my rows;$(x).csv'" in tool.command_of(odd)
    columns = {"prompt": "the question", "reply": "answer"}
    named = Request(data="owner/rows", model="b", name="mail", columns=columns, split="test")
    command = tool.command_of(named)
    assert command == (
        "make new-study DATA=owner/rows MODEL=b NAME=mail COLUMNS='prompt=\"the question\" reply=answer' SPLIT=test"
    )
    (given,) = [word for word in shlex.split(command) if word.startswith("COLUMNS=")]
    assert study_columns(given.removeprefix("COLUMNS=")) == columns


def test_a_name_that_is_no_file_name_is_refused(monkeypatch: pytest.MonkeyPatch, proposed: list[Request]) -> None:
    with pytest.raises(
        UserError, match=r"NAME: not a file name of letters, digits, '\.', '_' and '-' \('\.\./x'\)\. Fix"
    ):
        Request(data="a", model="b", name="../x")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_hands_over_only_what_its_command_line_says() -> None:
    command = ["make", "-n", "-o", ".venv/.study", "new-study", "DATA=my rows;x.csv", "LR=1e-4 2e-4"]
    environment = {"PATH": "/usr/bin:/bin", "NAME": "a-host"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith('scripts/tools/new_study.py --data="$DATA" --lr="$LR"'), done.stdout
