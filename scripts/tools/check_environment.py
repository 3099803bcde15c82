"""One line for a tool in a Python without the project's packages; each tool imports this before anything else."""

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("loragrid") is None:
    environment = Path(__file__).resolve().parents[2] / ".venv" / "bin" / "activate"
    fix = f"source {shlex.quote(str(environment))}" if environment.is_file() else "make study, which sets up .venv"
    print(f"error: the package loragrid is not installed in {sys.executable}. Fix: {fix}.", file=sys.stderr)
    sys.exit(2)
