"""The Colab notebook, run unchanged on a shrunken demo, without the cells that only Colab can run."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from loragrid.paths import ROOT
from tests.fixtures.checkout import Checkout

pytestmark = pytest.mark.usefixtures("warm")

NOTEBOOK = ROOT / "notebooks" / "t4_colab.ipynb"


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def text_of(cell: nbformat.NotebookNode) -> str:
    """What a cell printed, without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", "".join(output.get("text", "") for output in cell.outputs))


def test_it_is_kept_without_outputs_and_says_what_is_for_colab_only() -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    for cell in cells:
        assert ("colab" in tags(cell)) == ("google.colab" in cell.source or "pip install" in cell.source)
    assert [cell.id for cell in cells if "parameters" in tags(cell)] == ["parameters"]


@pytest.mark.slow
def test_plan_run_and_report(tmp_path: Path, toy_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = Checkout(tmp_path / "code", toy_llama)
    # The kernel takes the copy of the package instead of the installed one.
    monkeypatch.setenv("PYTHONPATH", str(checkout.folder / "scripts"))
    checkout.study = checkout.folder / "demo.yaml"
    settings = yaml.safe_load((ROOT / "config/studies/demo.yaml").read_text())
    settings["heldout"]["rows"], settings["data"]["plans"]["source"]["rows"] = 8, 240
    settings["grid"] = {}
    settings["base_case"] |= {"budget": {"steps": 4}, "evaluations": 2}
    settings["scoring"] |= {"limit": 4, "retention": ["world_sums"], "qualitative": None}
    checkout.write(settings)
    book = nbformat.read(NOTEBOOK, as_version=4)
    book.cells = [cell for cell in book.cells if "colab" not in tags(cell)]
    given = {
        "STUDY": str(checkout.study),
        "SESSION_MINUTES": 5,
        "RESULTS": str(tmp_path / "drive"),
        "PYTHON": sys.executable,
    }
    cells = {cell.id: cell for cell in book.cells}
    assert set(re.findall(r"^(\w+) = ", cells["parameters"].source, re.MULTILINE)) == set(given)
    cells["parameters"].source = "\n".join(f"{name} = {value!r}" for name, value in given.items())

    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(checkout.folder)}}).execute()

    assert "sessions" in text_of(cells["plan"]) and "llama-s" in text_of(cells["plan"])
    assert "report: reports/demo/report.html" in text_of(cells["run"])
    assert "&lt;html" in cells["report"].outputs[-1]["data"]["text/html"]
    assert (tmp_path / "drive/reports/demo/report.html").exists()
