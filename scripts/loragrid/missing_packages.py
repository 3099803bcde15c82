"""One line for a script that runs in a Python without the packages of the project."""

import shlex
import sys
from pathlib import Path
from types import TracebackType

from loragrid.paths import ROOT, SCRIPTS


def explain_missing_packages() -> None:
    """Let this process end with one line where a package cannot be imported, if it runs a script of the project."""
    if Path(sys.argv[0]).resolve().is_relative_to(SCRIPTS):
        sys.excepthook = _one_line


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    name = getattr(error, "name", None) or ""
    if not isinstance(error, ModuleNotFoundError) or name.partition(".")[0] in ("", "loragrid"):
        sys.__excepthook__(kind, error, trace)
        return
    environment = ROOT / ".venv" / "bin" / "activate"
    fix = f"source {shlex.quote(str(environment))}" if environment.is_file() else "make study, which sets up .venv"
    print(f"error: the package {name} is not installed in {sys.executable}. Fix: {fix}.", file=sys.stderr)
    sys.exit(2)
