"""A signal to Snakemake's process alone stops its jobs as Ctrl-C in a terminal does, and the same command goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loragrid.paths import ROOT

SNAKEFILE = """
from loragrid.workflow.stop_signals import StopRequests

onstart:
    StopRequests(say=print).install()

rule all:
    input: "first", "second"

rule work:
    output: "{name}"
    shell: "exec python job.py {wildcards.name}"
"""
# A job that pauses on a signal, as training does; it ends once there is a file `go`.
JOB = """
import signal, sys, time
from pathlib import Path

def pause(number, _):
    with open("told", "a") as file:
        print(sys.argv[1], signal.Signals(number).name, file=file)
    sys.exit(75)

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, pause)
Path(f"{sys.argv[1]}.began").touch()
while not Path("go").exists():
    time.sleep(0.05)
Path(sys.argv[1]).touch()
"""


class Call:
    """A call of Snakemake with two jobs that run one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "Snakefile").write_text(SNAKEFILE)
        (folder / "job.py").write_text(JOB)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts"), "PATH": path}

    def start(self, *options_of_snakemake: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--rerun-incomplete", *options_of_snakemake]
        said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        # A shell that runs the tests in the background makes them ignore Ctrl-C.
        not_ignored = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        options = {"cwd": self.folder, "env": self.environment, "start_new_session": True}
        return subprocess.Popen(command, **options, **said, **not_ignored)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_snakemake_alone_pauses_its_job_and_a_rerun_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    call = Call(tmp_path)
    snakemake = call.start()
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*.began")):
            assert snakemake.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(snakemake.pid, number)
        os.kill(snakemake.pid, number)  # a batch system may send it twice
        said, _ = snakemake.communicate(timeout=120)
    finally:
        (tmp_path / "go").touch()
    began = [file.stem for file in tmp_path.glob("*.began")]
    assert snakemake.returncode == 1 and len(began) == 1, said
    assert (tmp_path / "told").read_text() == f"{began[0]} SIGINT\n"
    assert f"loragrid: {number.name}: running jobs save their work and stop" in said
    again = call.start()
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert (tmp_path / "first").exists() and (tmp_path / "second").exists()


def test_a_job_that_begins_after_the_signal_is_told_too(tmp_path: Path) -> None:
    """Snakemake may be starting a job when the signal comes. In the background of a script, SIGINT is ignored: SIGTERM."""
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "parent.py").write_text(
        "import os, signal, subprocess, sys, time\n"
        "from loragrid.workflow.stop_signals import StopRequests\n"
        "StopRequests(say=print).install()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)  # ignored\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print(subprocess.run([sys.executable, 'job.py', 'late']).returncode)\n"
    )
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, "parent.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, timeout=120, capture_output=True, text=True, **ignoring
    )
    first, status = done.stdout.splitlines()
    # The interpreter may be told before it can handle a signal.
    assert "SIGTERM: running jobs" in first and int(status) in (75, -signal.SIGTERM), done.stderr


def test_ctrl_c_before_any_job_is_one_line(tmp_path: Path) -> None:
    """Snakemake ends as it does without the plugin, by the signal, and says no traceback."""
    call = Call(tmp_path)
    (tmp_path / "Snakefile").write_text("import pathlib, time\npathlib.Path('parsing').touch()\ntime.sleep(60)\n")
    snakemake = call.start("--logger", "loragrid")
    deadline = time.monotonic() + 120
    while not (tmp_path / "parsing").exists():
        assert snakemake.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    snakemake.send_signal(signal.SIGINT)
    said, _ = snakemake.communicate(timeout=120)
    assert snakemake.returncode == -signal.SIGINT, said
    assert said.strip() == "loragrid: interrupted; run the same command to start again"


STAGE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background ignores it
from loragrid.errors import run_main
from loragrid.runtime.delegation.client import delegate_job
delegate_job()
print("importing", flush=True)
if {imports}:
    signal.pause()
def main():
    signal.pause()
run_main(main)
"""


@pytest.mark.parametrize(("imports", "status", "line"), [(True, -signal.SIGINT, ""), (False, 130, "stopped by Ctrl-C\n")])
def test_ctrl_c_while_a_job_imports_its_libraries_is_no_traceback(imports: bool, status: int, line: str) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    job = subprocess.Popen([sys.executable, "-c", STAGE.format(imports=imports)], env=environment, **pipes)
    assert job.stdout.readline() == "importing\n"
    if not imports:
        time.sleep(0.2)  # until main waits
    job.send_signal(signal.SIGINT)
    assert (job.wait(timeout=60), job.stderr.read()) == (status, line)
