"""A digest of a stage's logic, so that Snakemake re-runs it when the code changes and not when a comment does."""

import ast
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
# Modules that only refuse: they decide whether a stage runs, never what it makes.
NO_PART = ("study/packages.py", "study/study_rules.py")


@cache
def code_digest(stage: str) -> str:
    """Digest of `scripts/{stage}.py` and of every module under `scripts/` that it imports, directly or not, less `NO_PART`.

    Built from `ast.dump` without docstrings: comments, blank lines and docstrings do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(modules_of(SCRIPTS / f"{stage}.py", without=[SCRIPTS / name for name in NO_PART])):
        digest.update(str(path.relative_to(SCRIPTS)).encode())
        digest.update(ast.dump(_without_docstrings(ast.parse(path.read_text(encoding="utf-8")))).encode())
    return digest.hexdigest()[:16]


def modules_of(start: Path, *, without: Sequence[Path] = ()) -> set[Path]:
    """`start` and every file under `scripts/` reachable from it by import, late imports inside functions included; not by way
    of the files in `without`."""
    found: set[Path] = set()
    queue = [start]
    while queue:
        path = queue.pop()
        if path in found or path in without:
            continue
        found.add(path)
        queue += _imported_files(path)
    return found


def _imported_files(path: Path) -> list[Path]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    files = []
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            base = SCRIPTS.joinpath(*parts[:depth])
            files += [file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()]
    return files


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
    return tree
