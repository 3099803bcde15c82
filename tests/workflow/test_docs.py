"""The pages around the code: their links, paths and names exist, and they stay short."""

import ast
import builtins
import re
import tomllib
from pathlib import Path

import pytest

from loragrid.paths import ROOT, SCRIPTS

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "config" / "README.md",
    ROOT / "config" / "prompts" / "README.md",
    ROOT / "benchmarks" / "README.md",
]
MOST_LINES = {ROOT / "README.md": 99} | dict.fromkeys((ROOT / "docs").glob("*.md"), 149)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PROJECT_PATH = re.compile(r"(?:scripts|workflow|config|tests|docs|benchmarks|notebooks|resources)/[\w./*-]*")


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the page's headings: lower case, without punctuation, a hyphen for each space."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named_paths(page: Path) -> set[str]:
    """Project paths in the page's code, in fenced blocks too; what a made-up part follows ends before it."""
    text = page.read_text(encoding="utf-8")
    code = [*CODE.findall(prose(page)), *FENCE.findall(text)]
    found = (
        match for piece in code for match in re.finditer(rf"(?<![\w/.{{}}-]){PROJECT_PATH.pattern}(?!\w*[{{(])", piece)
    )
    return {match[0].rstrip("./") for match in found}


def is_there(path: str) -> bool:
    """Whether a path of the project, or a pattern of paths, exists."""
    return any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists()


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_and_anchor_resolves(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{name_of(page)} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(linked), f"{name_of(page)} links to {target}, which has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_in_code_exists(page: Path) -> None:
    missing = sorted(path for path in named_paths(page) if not is_there(path))
    assert missing == [], f"{name_of(page)} names paths that do not exist"


@pytest.mark.parametrize(("page", "most"), MOST_LINES.items(), ids=lambda value: str(getattr(value, "name", value)))
def test_pages_stay_short(page: Path, most: int) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= most


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in LINK.findall(prose(ROOT / "README.md"))}
    assert set((ROOT / "docs").glob("*.md")) <= linked


def test_the_two_commands_come_first() -> None:
    block = FENCE.search((ROOT / "README.md").read_text(encoding="utf-8"))[0].splitlines()
    assert block[1] == "git clone <this repository> && cd loragrid" and block[2].startswith("make study ")
    assert "`make test`" in (ROOT / "README.md").read_text(encoding="utf-8")


def drawn_layers() -> list[set[str]]:
    """The rooms of each layer in the picture, from the top."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    picture = re.search(r"^```mermaid\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1]
    layer = r'subgraph \w+ \[" "\]\n +direction TB\n(.*?)\n    end'
    return [set(block.split()) for block in re.findall(layer, picture, re.DOTALL)]


def test_the_picture_has_the_layers_that_the_linter_checks() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert drawn_layers() == [set(layer.replace("|", " ").split()) for layer in layers]


def test_picture_and_table_name_the_rooms_that_there_are() -> None:
    package = SCRIPTS / "loragrid"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    rooms |= {path.stem for path in package.glob("*.py") if path.stem != "__init__"}
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    assert set().union(*drawn_layers()) == rooms == set(table)


def test_the_sections_of_the_report_are_those_of_its_page() -> None:
    table = re.findall(r"^\| ([A-Z][\w ]+) \|", (ROOT / "docs/reading-the-report.md").read_text(), re.MULTILINE)
    template = (SCRIPTS / "loragrid/reporting/templates/report.html.j2").read_text()
    navigation = re.search(r"<nav.*?</nav>", template, re.DOTALL)[0]
    assert table == re.findall(r">([A-Z][\w ]+)</a>", navigation)


# The names that the contributing guide's examples add, and a method of matplotlib that no figure uses yet.
OWN_NAMES = {"adam_beta2", "training_times", "invert_yaxis"}


def names_in_code(block: str) -> set[str]:
    """Variables, attributes and imports that a block of Python uses and does not assign."""
    nodes = list(ast.walk(ast.parse(block)))
    variables = [node for node in nodes if isinstance(node, ast.Name)]
    names = {node.id for node in variables} - {node.id for node in variables if isinstance(node.ctx, ast.Store)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return names | {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_names_in_the_examples_of_the_contributing_guide_exist() -> None:
    page = ROOT / "CONTRIBUTING.md"
    code = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS.rglob("*.py"))
    known = set(re.findall(r"\w+", code)) | set(vars(builtins)) | OWN_NAMES
    named = {name for name in CODE.findall(prose(page)) if re.fullmatch(r"[A-Za-z]+_\w+", name)}
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert named.union(*map(names_in_code, blocks)) - known == set()
