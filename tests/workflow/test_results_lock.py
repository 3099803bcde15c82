"""Two working directories that share one folder of results: the second snakemake is refused in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.runtime.run_lock import StudyLock
from loragrid.workflow.results_lock import hold_results


@pytest.mark.parametrize("backup", [False, True])
def test_a_second_working_directory_is_refused_before_it_writes(tmp_path: Path, backup: bool) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    results = first / "results" / "demo"
    for folder in (results, second):
        folder.mkdir(parents=True)
    (second / "results").symlink_to(first / "results")
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow/Snakefile", "--cores", "1"]
    if backup:
        (tmp_path / "place").mkdir()
        command += ["--config", f"backup=folder:{tmp_path / 'place'}"]
    with StudyLock(results, run="results/demo"):
        done = subprocess.run(command, cwd=second, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "results/demo: another snakemake writes these results (process " in line and "Fix: wait for it" in line
    assert "Traceback" not in done.stderr
    assert [path.name for path in results.iterdir()] == ["workflow.lock"]
    assert not backup or not list((tmp_path / "place").iterdir())


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = "import sys, os, signal; from pathlib import Path; from loragrid.workflow.results_lock import hold_results\n"
    code += f"hold_results(Path({str(tmp_path)!r})); print('held', flush=True); "
    killed = subprocess.run([sys.executable, "-c", code + "os.kill(os.getpid(), signal.SIGKILL)"], capture_output=True)
    assert killed.stdout == b"held\n"
    code += "sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"another snakemake writes these results .process {holder.pid} on "):
            hold_results(tmp_path)
        holder.stdin.close()
    assert (tmp_path / "workflow.lock").read_bytes() == b""
