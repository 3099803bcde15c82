"""The launcher of a run on several GPUs: one end for all its processes, and one line. No process imports torch."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import train
from loragrid.errors import Failed, Paused, UserError
from loragrid.paths import ROOT
from loragrid.study.study_file import load_study
from loragrid.training.backends.factory import choose_backend
from loragrid.training.ranks import launcher
from loragrid.training.ranks.launcher import launch_ranks
from tests.fixtures.train_toys import write_study

START = "import os, signal, sys, time; rank = int(os.environ['LORAGRID_RANK']); "
FOREVER = "time.sleep(600)"
MODEL = ROOT / "resources" / "models" / "llama-s"


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "GRACE_SECONDS", 0.3)


def launch(code: str, out: Path) -> None:
    """Launch two processes that run this Python code; it must not take longer than the patience of a test."""
    began = time.monotonic()
    try:
        launch_ranks([sys.executable, "-S", "-c", START + code], run="r", count=2, out=out)
    finally:
        assert time.monotonic() - began < 30


def test_all_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process sees a card of its own."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    code = f"open({str(tmp_path)!r} + f'/{{rank}}', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    launch(code, tmp_path / "run")
    assert [(tmp_path / name).read_text() for name in "01"] == ["GPU-a", "GPU-b"]


@pytest.mark.parametrize(
    ("end", "error", "line"),
    [
        ("print('error: study.yaml: no. Fix: yes.'); sys.exit(2)", UserError, r"study\.yaml: no\. Fix: yes\."),
        ("print('failed: no room'); sys.exit(1)", Failed, "no room"),
        ("sys.exit(3)", Failed, "process 1 of 2 ended with status 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", Failed, "process 1 of 2 was killed by SIGKILL, and the others"),
    ],
)
def test_the_end_of_one_process_ends_the_other(tmp_path: Path, end: str, error: type, line: str) -> None:
    with pytest.raises(error, match=line):
        launch(f"\nif rank == 0: {FOREVER}\n{end}", tmp_path / "run")


def test_the_first_process_has_said_why_itself(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        launch(f"\nif rank == 1: {FOREVER}\nprint('error: x', file=sys.stderr); sys.exit(2)", tmp_path / "run")
    assert end.value.code == 2 and capfd.readouterr().err == "error: x\n"


def test_a_signal_reaches_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that handle it end as they like; those that cannot yet, before they began."""

    def after_a_moment(seconds: float, sleep: Any = time.sleep) -> None:
        sleep(seconds)
        if all((tmp_path / name).exists() for name in "01"):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(launcher.time, "sleep", after_a_moment)
    ready = f"open({str(tmp_path)!r} + f'/{{rank}}', 'w'); {FOREVER}"
    with pytest.raises(SystemExit) as end:
        launch(f"signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); {ready}", tmp_path / "run")
    assert end.value.code == 75
    with pytest.raises(Paused, match=r"run r paused before it began .* run the same command to go on"):
        launch(ready, tmp_path / "run")


def test_the_stage_starts_as_many_processes_as_the_study_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(str(write_study(tmp_path, MODEL, training__gpus=2)))
    launched: dict[str, Any] = {}
    monkeypatch.setattr(train, "launch_ranks", lambda command, **named: launched.update(named, command=command))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    given = ["--study", str(study.path), "--run", study.cells[0].run, "--data", "data", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["train.py", *given, "--session-minutes", "5"])
    train.main()
    assert launched["count"] == 2 and launched["out"] == tmp_path / "run" and launched["run"] == study.cells[0].run
    python, script, *options = launched["command"]
    assert (python, Path(script).name, options[:8]) == (sys.executable, "train.py", given)
    ends = float(options[options.index("--session-ends") + 1])
    assert 0 < ends - time.monotonic() <= 300


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"base_case__batch": [3, 1]},
            r"training\.gpus: 2 GPUs do not divide the rows of an update, 3 \(batch 3 × 1\)\. Fix: use 1, or another batch",
        ),
        ({"grid": {"axes": {"batch": [[2, 2], [1, 1]]}}}, r"the rows of an update, 1 \(batch 1 × 1\)"),
        (
            {"base_case__backend": "unsloth"},
            r"training\.gpus: the backend unsloth trains on one GPU only \(gpus 2\)\. Fix",
        ),
        ({"training__gpus": 0}, r"training\.gpus: "),
    ],
)
def test_a_study_that_cannot_be_divided_is_refused(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        load_study(str(write_study(tmp_path, MODEL, **{"training__gpus": 2} | changes)))


def test_the_number_of_gpus_is_no_part_of_a_runs_identity(tmp_path: Path) -> None:
    runs = [load_study(str(write_study(tmp_path, MODEL, training__gpus=gpus))).cells[0].run for gpus in (1, 2)]
    assert runs[0] == runs[1]


def test_auto_means_trl_on_several_gpus() -> None:
    assert choose_backend("auto", device="cuda", gpus=2).name == "trl"
