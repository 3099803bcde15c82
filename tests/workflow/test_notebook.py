"""The notebooks for Colab and Kaggle: their commands, and Colab's run unchanged on a shrunken demo, without the cells that
only Colab can run and in an environment without the packages of the tests."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from loragrid.paths import ROOT
from loragrid.workflow.options import Options
from tests.fixtures.checkout import Checkout
from tests.fixtures.study_environment import make_study_environment

NOTEBOOKS = {"colab": ROOT / "notebooks" / "t4_colab.ipynb", "kaggle": ROOT / "notebooks" / "t4_kaggle.ipynb"}
# matplotlib_inline is what the notebook's kernel makes MPLBACKEND name.
ABSENT = ("pytest", "hypothesis", "gradio", "IPython", "matplotlib_inline")
each_notebook = pytest.mark.parametrize("place", NOTEBOOKS)


def read(place: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS[place], as_version=4)


def code_cells(place: str) -> dict[str, nbformat.NotebookNode]:
    return {cell.id: cell for cell in read(place).cells if cell.cell_type == "code"}


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def text_of(cell: nbformat.NotebookNode) -> str:
    """What a cell printed, without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", "".join(output.get("text", "") for output in cell.outputs))


def commands(place: str) -> list[list[str]]:
    """The words of each shell command, with the notebook's own values in it."""
    names: dict[str, Any] = {}
    found = []
    for cell in code_cells(place).values():
        for line in cell.source.splitlines():
            if re.match(r"[A-Z_]+ = ", line):
                exec(line, names)
            if line.startswith("!"):
                found.append(shlex.split(eval(f"f{line[1:]!r}", names)))
    return found


@each_notebook
def test_it_is_valid_and_kept_without_outputs(place: str) -> None:
    nbformat.validate(read(place))
    cells = code_cells(place).values()
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    for cell in cells:
        assert (place in tags(cell)) == ("google.colab" in cell.source or "pip install" in cell.source)
    assert [cell.id for cell in cells if "parameters" in tags(cell)] == ["parameters"]
    # A placeholder that nobody takes for an address, and that stops the notebook.
    assert 'REPOSITORY = "ADDRESS-OF-YOUR-COPY"' in code_cells(place)["install"].source


@each_notebook
def test_its_commands_are_those_of_the_command_lines(place: str) -> None:
    from snakemake.cli import get_argument_parser

    rules = re.findall(
        r"^(?:rule|checkpoint) (\w+)", "".join(f.read_text() for f in ROOT.glob("workflow/rules/*")), re.M
    )
    calls = [words for words in commands(place) if "snakemake" in words]
    assert len(calls) == 4
    for words in calls:
        given = get_argument_parser().parse_args(words[words.index("snakemake") + 1 :])
        assert set(given.targets or ()) <= set(rules), words
        Options.read({name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in given.config)})
    assert {word for words in calls for word in words} >= {"plan", "--unlock", "partial=true", "study=t4"}


@each_notebook
def test_its_set_up_is_that_of_git_and_uv(place: str) -> None:
    tools = [words for words in commands(place) if words[0] in ("git", "uv")]
    assert [words[0] for words in tools] == ["git", "uv", "uv", "uv"]
    for words in tools:
        name = words[: 3 if words[1] == "pip" else 2]
        if name[0] == "uv":
            # It is installed with the tests.
            name[0] = str(Path(sys.executable).with_name("uv"))
        usage = subprocess.run([*name, "-h" if words[0] == "git" else "--help"], capture_output=True, text=True).stdout
        flags = [word.removeprefix("--") for word in words if word.startswith("--")]
        assert flags and all(re.search(rf"--(\[no-\])?{flag}\b", usage) for flag in flags), usage
    assert (ROOT / "requirements-gpu.txt").exists() and any("requirements-gpu.txt" in words for words in tools)


def test_both_do_the_same_study_in_the_same_way() -> None:
    colab, kaggle = code_cells("colab"), code_cells("kaggle")
    assert all(colab[name].source == kaggle[name].source for name in ("run", "report"))
    assert 'os.environ["MPLBACKEND"] = "Agg"' in colab["plan"].source and 'STUDY = "t4"' in colab["parameters"].source
    cores, limit = "--cores 1", "--cores {2 * CARDS} --resources gpu={CARDS}"
    assert colab["plan"].source.replace(cores, limit) == kaggle["plan"].source != colab["plan"].source
    (first, *_) = [words for words in commands("kaggle") if "snakemake" in words]
    assert first[first.index("--resources") :][:2] == ["--resources", "gpu=2"]


def test_kaggle_packs_its_results_and_takes_them_up_again(tmp_path: Path) -> None:
    """With hidden files and times; a second session in the same folder keeps what is there."""
    cells = code_cells("kaggle")
    record = tmp_path / "first" / "results" / "t4" / "record.json"
    hidden = tmp_path / "first" / ".snakemake" / "metadata"
    record.parent.mkdir(parents=True)
    hidden.mkdir(parents=True)
    record.write_text("{}")
    os.utime(record, (1_000_000, 1_000_000))
    (tmp_path / "out").mkdir()
    names = {"RESULTS": str(tmp_path / "first"), "INPUTS": str(tmp_path / "input")}
    names["PACKED"] = str(tmp_path / "out" / "loragrid.results")
    exec(cells["unpack"].source, names)
    exec(cells["pack"].source, names)
    data_set = tmp_path / "input" / "some-data-set"
    data_set.mkdir(parents=True)
    (tmp_path / "out" / "loragrid.results").rename(data_set / "loragrid.results")
    names["RESULTS"] = str(tmp_path / "second")
    exec(cells["unpack"].source, names)
    again = tmp_path / "second" / "results" / "t4" / "record.json"
    assert again.stat().st_mtime == 1_000_000 and (tmp_path / "second" / ".snakemake" / "metadata").is_dir()
    again.write_text("newer")
    exec(cells["unpack"].source, names)
    assert again.read_text() == "newer"


def missing_packages(python: Path, names: tuple[str, ...]) -> list[str]:
    code = "import sys; from importlib.util import find_spec; print(*[name for name in sys.argv[1:] if not find_spec(name)])"
    return subprocess.run([python, "-I", "-c", code, *names], capture_output=True, text=True).stdout.split()


@pytest.mark.long
def test_plan_run_and_report(tmp_path: Path, toy_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = Checkout(tmp_path / "code", toy_llama)
    python = make_study_environment(tmp_path / "venv")
    assert missing_packages(python, (*ABSENT, "snakemake")) == list(ABSENT)
    # The kernel takes the copy of the package instead of the installed one.
    monkeypatch.setenv("PYTHONPATH", str(checkout.folder / "scripts"))
    checkout.study = checkout.folder / "demo.yaml"
    settings = yaml.safe_load((ROOT / "config/studies/demo.yaml").read_text())
    settings["heldout"]["rows"], settings["data"]["plans"]["source"]["rows"] = 8, 240
    settings["grid"] = {}
    settings["base_case"] |= {"budget": {"steps": 4}, "evaluations": 2}
    settings["scoring"] |= {"limit": 4, "retention": ["world_sums"], "qualitative": None}
    checkout.write(settings)
    book = read("colab")
    book.cells = [cell for cell in book.cells if "colab" not in tags(cell)]
    given = {
        "STUDY": str(checkout.study),
        "SESSION_MINUTES": 5,
        "RESULTS": str(tmp_path / "drive"),
        "PYTHON": str(python),
    }
    cells = {cell.id: cell for cell in book.cells}
    assert set(re.findall(r"^(\w+) = ", cells["parameters"].source, re.MULTILINE)) == set(given)
    cells["parameters"].source = "\n".join(f"{name} = {value!r}" for name, value in given.items())

    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(checkout.folder)}}).execute()

    assert "sessions" in text_of(cells["plan"]) and "llama-s" in text_of(cells["plan"])
    assert "wrote the page: reports/demo/report.html" in text_of(cells["run"])
    assert "&lt;html" in cells["report"].outputs[-1]["data"]["text/html"]
    assert (tmp_path / "drive/reports/demo/report.html").exists()
