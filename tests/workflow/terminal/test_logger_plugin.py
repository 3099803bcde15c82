"""The logger plugin: Snakemake's events become the display's lines, and a dry run looks as Snakemake prints it."""

import logging
from pathlib import Path

import pytest
from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry
from snakemake_interface_logger_plugins.tests import MockOutputSettings, TestLogHandlerBase

from snakemake_logger_plugin_loragrid import LogHandler

RULE_ERROR = (
    "RuleException:\nCalledProcessError in file train.smk, line 9:\nCommand 'exec python train.py --log results/a.log' "
)


class TestInterface(TestLogHandlerBase):
    """The checks that Snakemake's interface has for every plugin."""

    __test__ = True

    def get_log_handler_cls(self) -> type[LogHandler]:
        return LogHandler

    def get_log_handler_settings(self) -> None:
        return None


def settings(**changed: object) -> MockOutputSettings:
    made = MockOutputSettings()
    made.printshellcmds = False
    for name, value in changed.items():
        setattr(made, name, value)
    return made


def record(
    message: str, event: LogEvent | None = None, level: int = logging.INFO, **values: object
) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    made.__dict__ |= {"event": event, **values}
    return made


def job(number: int, rule: str, **values: object) -> dict:
    nothing = {"log": [], "output": [], "wildcards": {}}
    return nothing | {"jobid": number, "rule_name": rule, **values}


def test_snakemake_finds_the_plugin_by_its_name() -> None:
    assert LoggerPluginRegistry().is_installed("loragrid")


def test_a_dry_run_is_printed_as_without_the_plugin(capsys: pytest.CaptureFixture) -> None:
    records = [
        record("Building DAG of jobs..."),
        record("Job stats:\ntrain 2", LogEvent.RUN_INFO, stats={"train": 2}),
        record("", LogEvent.JOB_INFO, **job(1, "train", rule_msg="train a run", reason="new")),
        record("This was a dry-run (flag -n)."),
    ]
    chosen = settings(dryrun=True, stdout=True)
    handler = LogHandler(chosen, None)
    for one in records:
        handler.emit(one)
    handler.close()
    said = capsys.readouterr()
    ours = ColorizingTextHandler(nocolor=False)
    ours.setFormatter(DefaultFormatter())
    ours.addFilter(DefaultFilter(None, False, False, True, False))
    import sys

    ours.stream = sys.stdout
    for one in records:
        ours.handle(one)
    plain = capsys.readouterr()
    # Apart from the time of day.
    assert [line for line in said.out.splitlines() if "[" not in line] == [
        line for line in plain.out.splitlines() if "[" not in line
    ]
    assert "Building DAG" in said.out and "train a run" in said.out and said.err == ""


def test_what_snakemake_says_of_itself_is_left_out(capsys: pytest.CaptureFixture) -> None:
    handler = LogHandler(settings(), None)
    handler.emit(record("Building DAG of jobs..."))
    handler.emit(record("Workflow has started!", LogEvent.WORKFLOW_STARTED))
    handler.emit(record("Provided cores: 1", LogEvent.RESOURCES_INFO))
    handler.emit(record("Unlocked working directory."))
    handler.emit(record("something odd", level=logging.WARNING))
    handler.close()
    assert capsys.readouterr().err.splitlines() == ["Unlocked working directory.", "something odd"]


@pytest.mark.parametrize("quiet", [None, {Quietness.ALL}])
def test_the_lock_is_one_line_however_quiet(
    quiet: set | None, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    handler = LogHandler(settings(quiet=quiet), None)
    text = "LockException:\nError: Directory cannot be locked. Please make sure ..."
    handler.emit(record(text, LogEvent.ERROR, logging.ERROR, exception="LockException"))
    handler.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}: another snakemake works in this folder, or one was killed here. Fix: ")
    assert "`snakemake --unlock`" in line


def test_a_failed_job_is_one_line_with_its_reason_and_log(
    capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    Path("results/a.log").write_text("loading\nerror: rank: too large (0). Fix: lower it.\n")
    handler = LogHandler(settings(quiet={Quietness.ALL}), None)
    exited = f"{RULE_ERROR}returned non-zero exit status 2."
    handler.emit(record(exited, LogEvent.ERROR, logging.ERROR, exception="RuleException"))
    failed = job(1, "train", log=["results/a.log"])
    handler.emit(record("Error in rule train", LogEvent.JOB_ERROR, logging.ERROR, **failed))
    handler.emit(
        record("WorkflowError:\nAt least one job did not complete successfully.", LogEvent.ERROR, logging.ERROR)
    )
    handler.close()
    assert capsys.readouterr().err.splitlines() == [
        "train failed: error: rank: too large (0). Fix: lower it. (log: results/a.log)"
    ]


@pytest.mark.parametrize(
    ("number", "line"),
    [
        ("SIGKILL: 9", "failed: killed by SIGKILL, as the system does when memory runs out (log: results/a.log)"),
        ("SIGINT: 2", "stopped by Ctrl-C before its work began"),
    ],
)
def test_a_job_that_was_killed_says_by_what(
    number: str, line: str, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    handler = LogHandler(settings(), None)
    killed = f"{RULE_ERROR}died with <Signals.{number}>."
    handler.emit(record(killed, LogEvent.ERROR, logging.ERROR, exception="RuleException"))
    failed = job(1, "train", log=["results/a.log"])
    handler.emit(record("Error in rule train", LogEvent.JOB_ERROR, logging.ERROR, **failed))
    handler.close()
    assert capsys.readouterr().err == f"train {line}\n"


def test_nothing_to_do_names_the_report(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    handler = LogHandler(settings(), None)
    handler.display.report = tmp_path / "report.html"
    handler.display.report.touch()
    handler.emit(record("Nothing to be done (all requested files are present and up to date)."))
    handler.close()
    assert capsys.readouterr().err == (
        f"loragrid: nothing to do, everything is finished. The report: {tmp_path / 'report.html'}\n"
    )
