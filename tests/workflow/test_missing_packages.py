"""Scripts that run in a Python without the project's packages end with one line that says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loragrid.paths import ROOT

SCRIPTS = sorted(path for path in ROOT.glob("scripts/**/*.py") if "__main__" in path.read_text(encoding="utf-8"))
SCRIPTS = [path for path in SCRIPTS if path.parent.name in ("scripts", "tools")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_outside_of_the_environment_is_one_line(script: Path) -> None:
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # -S: without any installed package.
    done = subprocess.run([sys.executable, "-S", script, "--help"], capture_output=True, text=True, env=surroundings)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: the package ") and " is not installed in " in line
    assert " Fix: " in line
