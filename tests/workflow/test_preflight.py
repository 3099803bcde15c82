"""What this machine lacks is one line of the dry run, before any job."""

import os
import subprocess
import sys
from pathlib import Path

from loragrid.paths import ROOT
from tests.fixtures.nvidia_smi import write_nvidia_smi


def test_the_dry_run_refuses_a_card_that_torch_cannot_use(tmp_path: Path) -> None:
    """An old driver, so that it is refused whatever torch is installed."""
    path = f"{write_nvidia_smi(tmp_path, driver='470.57.02')}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "workflow/Snakefile", "--cores", "1", "-n"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Tesla T4" in line and "470.57.02" in line and "Fix: " in line and "Traceback" not in done.stderr
