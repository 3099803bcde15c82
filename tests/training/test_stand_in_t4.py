"""The study `t4` on a CPU that says it is a T4 (stand_in_cases.py), and on a machine whose card torch cannot use.

The stand-in changes torch, and unsloth changes the other libraries, so each backend has a process of its own.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from loragrid.paths import ROOT, SCRIPTS
from loragrid.study.study_file import load_study
from tests.fixtures.nvidia_smi import write_nvidia_smi

CASES = Path(__file__).with_name("stand_in_cases.py")
BESIDE = ROOT / ".venv" / "unsloth" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["trl", "unsloth"])
def test_every_setting_of_t4(backend: str) -> None:
    python = sys.executable
    if backend == "unsloth" and not find_spec("unsloth"):
        python = BESIDE
    if not Path(python).exists():
        pytest.skip("unsloth is not installed: make .venv/.unsloth")
    if not find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is not installed, and t4 has 4-bit bases")
    command = [python, "-m", "pytest", CASES, "-o", "addopts=", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # Pieces of Gemma would be compiled for a CPU for a minute.
    environment = os.environ | {"LORAGRID_STAND_IN": backend, "TORCH_COMPILE_DISABLE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_auto_does_not_take_the_cpu_where_the_driver_sees_a_card(tmp_path: Path) -> None:
    """An old driver, so that torch cannot use the card, whatever build of it is installed."""
    run = load_study("t4").cells[0].run
    environment = os.environ | {"PATH": f"{write_nvidia_smi(tmp_path, driver='470.57.02')}:{os.environ['PATH']}"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, SCRIPTS / "train.py", "--study", "t4", "--run", run]
    command += ["--data", tmp_path / "data", "--out", tmp_path / "run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "Tesla T4 (driver 470.57.02)" in line.replace("version ", "") and "Fix: " in line
    assert "Traceback" not in done.stderr and not (tmp_path / "run" / "record.json").exists()
