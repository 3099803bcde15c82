"""The backend `unsloth`: refused if it is missing; its cases in unsloth_cases.py if it is installed.

unsloth changes the libraries that it is imported with, so its cases run in a process of their own: in the interpreter
that `make .venv/.unsloth` sets up, or in this one if it has unsloth.
"""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.paths import ROOT, SCRIPTS
from loragrid.runtime.atomic_files import read_json
from loragrid.training.backends.factory import choose_backend
from tests.fixtures.backend_trace import VARIANTS, can_train, trace
from tests.fixtures.train_toys import make_toy

CASES = Path(__file__).with_name("unsloth_cases.py")
BESIDE = ROOT / ".venv" / "unsloth" / "bin" / "python"
NAMES = re.findall(r"^def (test_\w+)", CASES.read_text(), flags=re.M)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder to which the cases write the backend's traces."""
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, traces: Path) -> dict[str, list[str]]:
    """The errors of each case; none for one that passed."""
    python = sys.executable if find_spec("unsloth") else BESIDE
    if not Path(python).exists():
        pytest.skip("unsloth is not installed: make .venv/.unsloth")
    report = tmp_path_factory.mktemp("unsloth") / "report.xml"
    command = [python, "-m", "pytest", CASES, f"--junit-xml={report}", "-p", "no:cacheprovider"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "LORAGRID_TRACES": str(traces)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert report.is_file(), done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for case in ET.parse(report).iter("testcase"):
        wrong = [f"{part.get('message')}\n{part.text}" for part in case if part.tag in ("failure", "error", "skipped")]
        found.setdefault(case.get("name").partition("[")[0], []).extend(wrong)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_case(outcomes: dict[str, list[str]], name: str) -> None:
    assert name in outcomes and not outcomes[name], "\n".join(outcomes.get(name, ["not run"]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_backends_train_the_same(
    outcomes: dict[str, list[str]], traces: Path, toy_llama: Path, tmp_path: Path, variant: str
) -> None:
    """Equal initial adapters, batches, loss divisors, optimizers and counts; losses differ by rounding only."""
    if not can_train(variant):
        pytest.skip("bitsandbytes is not installed")
    ours, its = (
        trace("trl", variant, model=toy_llama, folder=tmp_path),
        read_json(traces / f"{variant}.json"),
    )
    ours = json.loads(json.dumps(ours))
    for part in ("adapter", "optimizer", "counts"):
        assert its[part] == ours[part]
    assert len(its["updates"]) == 12 and its["updates"] == ours["updates"]
    for update in its["updates"]:
        labels = [label for batch in update["batches"] for _, row in batch for label in row[1:]]
        assert -100 in labels and update["divisor"] == sum(label != -100 for label in labels)
    assert its["losses"] == pytest.approx(ours["losses"], rel=1e-3 if "bf16" in variant else 1e-5)


@pytest.mark.skipif(find_spec("unsloth") is not None, reason="unsloth is installed here")
def test_missing_unsloth_is_one_line(toy_llama: Path, tmp_path: Path) -> None:
    for name, device in (("unsloth", "cpu"), ("auto", "cuda")):
        with pytest.raises(
            UserError,
            match=r"pip install -r requirements-gpu\.txt, or set backend to trl",
        ):
            choose_backend(name, device=device)
    toy = make_toy(tmp_path, toy_llama, base_case__backend="unsloth")
    with pytest.raises(UserError, match="needs unsloth, which is not installed"):
        toy.train(tmp_path / "run")
    assert not (tmp_path / "run" / "record.json").exists()


BROKEN = """
import os
from pathlib import Path
from loragrid.errors import UserError
from loragrid.training.backends.unsloth_loading import import_unsloth
for kind in ("ImportError", "RuntimeError", "OSError", "AttributeError", "SyntaxError"):
    os.environ["KIND"] = kind
    try:
        import_unsloth()
    except UserError as error:
        assert chr(10) not in str(error), error
        print(error)
print(os.environ["UNSLOTH_BLOCK_COMPILE"], Path(os.environ["UNSLOTH_COMPILE_LOCATION"]).is_dir())
"""


def test_an_error_of_any_class_while_it_is_imported_is_one_line(tmp_path: Path) -> None:
    """A missing driver or library can raise anything. Blocks are compiled only for who asks for it."""
    (tmp_path / "unsloth.py").write_text(
        "import builtins, os\nraise getattr(builtins, os.environ['KIND'])('no GPU\\nat all')\n"
    )
    path = f"{tmp_path}{os.pathsep}{SCRIPTS}"
    for given, kept in (({}, "0"), ({"UNSLOTH_BLOCK_COMPILE": "1"}, "1")):
        environment = {name: value for name, value in os.environ.items() if name != "UNSLOTH_BLOCK_COMPILE"}
        environment |= {"PYTHONPATH": path} | given
        done = subprocess.run([sys.executable, "-c", BROKEN], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        *lines, last = done.stdout.splitlines()
        assert len(lines) == 5 and last == f"{kept} True"
        assert all("unsloth is installed but cannot be imported (no GPU). Fix: " in line for line in lines)
