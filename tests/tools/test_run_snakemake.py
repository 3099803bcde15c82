"""Ctrl-C while `make study` starts Snakemake is one line, whether it meets an import or the reading of the study."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loragrid.errors import EXIT_STOPPED
from loragrid.paths import SCRIPTS

INTERRUPT = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)"
IMPORT = f"{INTERRUPT}\n"
READING = f"def main():\n    try: {INTERRUPT}\n    finally: print('unlocked', flush=True)\n"


@pytest.mark.parametrize(("snakemake", "said"), [(IMPORT, ""), (READING, "unlocked\n")], ids=["import", "reading"])
def test_ctrl_c_before_any_job_is_one_line(tmp_path: Path, snakemake: str, said: str) -> None:
    (tmp_path / "snakemake").mkdir()
    (tmp_path / "snakemake" / "__init__.py").touch()
    (tmp_path / "snakemake" / "cli.py").write_text(snakemake)
    surroundings = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{SCRIPTS}"}
    command = [sys.executable, SCRIPTS / "tools" / "run_snakemake.py", "--cores", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_STOPPED, said, "stopped by Ctrl-C\n")


def test_the_arguments_are_snakemake_s(tmp_path: Path) -> None:
    (tmp_path / "snakemake").mkdir()
    (tmp_path / "snakemake" / "__init__.py").touch()
    (tmp_path / "snakemake" / "cli.py").write_text("import sys\ndef main():\n    sys.exit(' '.join(sys.argv))\n")
    surroundings = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{SCRIPTS}"}
    command = [sys.executable, SCRIPTS / "tools" / "run_snakemake.py", "--cores", "2", "-n"]
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings, timeout=60)
    assert (done.returncode, done.stderr) == (1, "snakemake --cores 2 -n\n")
