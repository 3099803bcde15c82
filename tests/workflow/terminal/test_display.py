"""The display of a call: header, results, progress, failures, and one writer for all that jobs print."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loragrid.errors import DISPLAY, EVENT
from loragrid.workflow.terminal import display as display_module
from loragrid.workflow.terminal.display import Display
from loragrid.workflow.terminal.header import CallPlan
from loragrid.workflow.terminal.screens import Snapshot, bars

RUN = "llama-s_rank64_c75e50c9"
PLAN = CallPlan(
    jobs=[("train", RUN), ("score", RUN), ("report", "")],
    unshown=1,
    header=("demo: a question", "1 run"),
    planned_seconds={("train", RUN): 600.0, ("score", RUN): 60.0},
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(DISPLAY, "")  # what the display sets is gone after the test
    return tmp_path


def info(rule: str, name: str = RUN, output: str | None = None) -> dict:
    outputs = [] if output is None else [output]
    return {"rule_name": rule, "wildcards": {"run": name}, "log": [f"{rule}.log"], "output": outputs}


def say(kind: str, line: str, *, log: str = "train.log", **progress: object) -> None:
    """What a job writes to the stderr that it has inherited."""
    os.write(2, (EVENT + json.dumps({"kind": kind, "log": log, "line": line} | progress) + "\n").encode())


def step(done: int) -> dict:
    return {"done": done, "total": 10, "unit": "steps", "text": "loss 0.5", "seconds_left": 30.0}


def test_a_call_is_a_header_a_line_for_each_job_and_an_end(place: Path, capfd: pytest.CaptureFixture) -> None:
    record = {"status": "finished", "steps": 137, "first_heldout_loss": 0.25, "final_heldout_loss": 0.19}
    Path("record.json").write_text(json.dumps(record))
    tasks = {"sums": {"status": "scored", "primary_metric": "acc", "metrics": {"acc": {"value": 0.75}}}}
    Path("score.json").write_text(json.dumps({"status": "scored", "tasks": tasks}))
    Path("report.log").write_text("report: page.html\n")
    display = Display()
    display.report = place / "page.html"
    display.report.touch()
    display.begin(PLAN)
    for number, rule, output in ((1, "train", "record.json"), (2, "score", "score.json"), (3, "report", None)):
        display.job_began(number, info(rule, "" if rule == "report" else RUN, output))
        display._running[number].began -= 7200
        say("result", f"what {rule} says of itself", log=f"{rule}.log")
        display.job_finished(number)
    display.close()
    said = capfd.readouterr().err.splitlines()
    assert said[:2] == ["loragrid | demo: a question", "         | 1 run"]
    # Twelve times as slow as planned, and the plan has a minute for the score.
    assert said[2] == (
        "[1/3 · 12 min left] trained llama-s_rank64: 137 steps, held-out loss 0.2500 → 0.1900 (2 h 0 min)"
    )
    assert said[3] == "[2/3] scored llama-s_rank64: sums 0.75 (2 h 0 min)"
    assert said[4] == "[3/3] wrote the page: page.html (2 h 0 min)"
    assert re.fullmatch(r"loragrid: 3 jobs done in \d+ s\. The report: " + re.escape(f"{place}/page.html"), said[5])
    assert len(said) == 6 and DISPLAY not in os.environ


def test_jobs_and_libraries_write_through_the_display(capfd: pytest.CaptureFixture) -> None:
    display = Display()
    display.begin(PLAN)
    display.job_began(1, info("train"))
    program = "import sys; from loragrid.errors import *; print('a library', file=sys.stderr)"
    subprocess.run([sys.executable, "-c", program], check=True)
    say("line", "checkpoint 20 is broken: set aside")
    say("end", "run a paused")
    os.write(2, b"no end of line")
    display.close()
    assert capfd.readouterr().err.splitlines()[2:] == [
        "a library",
        "checkpoint 20 is broken: set aside",
        "no end of line",
    ]


def test_a_job_writes_events_only_for_a_display(tmp_path: Path) -> None:
    program = (
        "import argparse, loragrid.errors as e; e.log_option().parse_args();"
        "e.print_progress('step 1', done=1, total=2, unit='steps', text='loss 1', seconds_left=None)"
    )
    command = [sys.executable, "-c", program, "--log", "job.log"]
    for shown in (False, True):
        environment = {key: value for key, value in os.environ.items() if key != DISPLAY} | (
            {DISPLAY: "1"} if shown else {}
        )
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
        if shown:
            assert json.loads(said.removeprefix(EVENT)) == {
                "kind": "progress",
                "log": "job.log",
                "line": "step 1",
                "done": 1,
                "total": 2,
                "unit": "steps",
                "text": "loss 1",
                "seconds_left": None,
            }
        else:
            assert said == "step 1\n"
    assert Path("job.log").read_text() == "step 1\nstep 1\n"


def test_a_job_outlives_its_display(tmp_path: Path) -> None:
    """A trainer goes on when its snakemake is killed: the pipe that it writes to has no reader then."""
    program = "import sys, loragrid.errors as e; e.log_option().parse_args(); sys.stdin.read(); e.print_line('on')"
    reading, writing = os.pipe()
    job = subprocess.Popen(
        [sys.executable, "-c", program, "--log", "job.log"],
        stdin=subprocess.PIPE,
        stderr=writing,
        env=os.environ | {DISPLAY: "1"},
    )
    os.close(writing)
    os.close(reading)
    job.communicate()
    assert job.returncode == 0 and Path("job.log").read_text() == "on\n"


def test_without_bars_a_long_job_has_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(display_module, "FIRST_LINE_SECONDS", 0.0)
    display = Display()
    display.begin(PLAN)
    display.job_began(1, info("train"))
    say("progress", "…", **{**step(0), "total": 0, "text": "loading the base, 16 s", "seconds_left": None})
    say("progress", "…", **step(3))
    say("progress", "…", **step(10))
    display.close()
    assert capfd.readouterr().err.splitlines()[2:] == [
        "  … train llama-s_rank64: loading the base, 16 s",
        "  … train llama-s_rank64: 3 of 10 steps, loss 0.5, 30 s left",
    ]


def test_a_paused_job_is_no_failure(capfd: pytest.CaptureFixture) -> None:
    Path("train.log").write_text("run a paused at step 3 of 9 (SIGINT), run the same command to go on\n")
    display = Display()
    display.begin(PLAN)
    display.job_began(1, info("train"))
    display.job_failed(1, info("train"), "returned non-zero exit status 75.")
    display.close()
    (line,) = capfd.readouterr().err.splitlines()[2:]
    assert line.endswith(
        "train llama-s_rank64 paused: run a paused at step 3 of 9 (SIGINT), run the same command to go on"
    )


def test_quiet_leaves_failures_only(capfd: pytest.CaptureFixture) -> None:
    display = Display(shows_jobs=False, shows_progress=False)
    display.begin(PLAN)
    display.job_began(1, info("score"))
    display.job_finished(1)
    display.job_began(2, info("train"))
    display.job_failed(2, info("train"), "returned non-zero exit status 1.")
    display.close()
    (line,) = capfd.readouterr().err.splitlines()
    assert "train llama-s_rank64 failed: exit status 1 without a reason in its log (log: train.log)" in line


def test_a_call_of_only_plan_or_next_takes_nothing_over(capfd: pytest.CaptureFixture) -> None:
    display = Display()
    display.begin(CallPlan(jobs=[], unshown=1))
    display.job_began(1, info("plan", ""))
    os.write(2, b"the job's own text\n")
    display.job_finished(1)
    display.close()
    assert capfd.readouterr().err == "the job's own text\n"


def test_the_bars_show_each_job_and_all_of_them() -> None:
    from rich.console import Console

    display = Display()
    display._began = 0.0
    display.job_began(1, info("train"))
    display._running[1].update(step(5))
    console = Console(width=120, record=True, file=open(os.devnull, "w"))
    console.print(bars(Snapshot(list(display._running.values()), 3, 8, "3 of 8, 2 min so far")))
    first, second = console.export_text().splitlines()
    assert first.startswith("train llama-s_rank64 ━") and "5 of 10 steps, loss 0.5, 30 s left" in first
    assert second.startswith("all jobs") and "3 of 8, 2 min so far" in second


def test_on_a_terminal_the_bars_leave_nothing_behind(tmp_path: Path) -> None:
    """A pseudo terminal gets the lines, and between them bars that are gone at the end."""
    import pty

    program = tmp_path / "call.py"
    program.write_text(
        "import os, sys, time\n"
        "from loragrid.workflow.terminal.display import Display\n"
        "from loragrid.workflow.terminal.header import CallPlan\n"
        "display = Display()\n"
        "display.begin(CallPlan(jobs=[('report', '')], header=('a study',)))\n"
        "display.job_began(1, {'rule_name': 'report', 'wildcards': {}, 'log': [], 'output': []})\n"
        "os.write(1, b'on stdout\\n')\n"
        "time.sleep(0.6)\n"
        "display.job_finished(1)\n"
        "display.close()\n"
    )
    main, other = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color"}
    environment.pop("JPY_PARENT_PID", None)
    process = subprocess.Popen([sys.executable, program], stdin=other, stdout=other, stderr=other, env=environment)
    os.close(other)
    said = b""
    while True:
        try:
            data = os.read(main, 65536)
        except OSError:  # its other side is closed
            break
        said += data
    os.close(main)
    assert process.wait() == 0
    text = said.decode()
    assert "all jobs" in text and "\x1b[2K" in text, "no bars were drawn or removed"
    assert text.index("a study") < text.index("on stdout") < text.index("[1/1]") < text.index("1 job done in")
    assert text.rstrip().splitlines()[-1].rpartition("\x1b[2K")[2].startswith("loragrid: 1 job done in ")
    assert text.count("\x1b[?25l") <= text.count("\x1b[?25h"), "the cursor stays hidden"
