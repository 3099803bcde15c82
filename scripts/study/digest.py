"""A digest of a stage's logic, so that Snakemake re-runs it when the code changes and not when a comment does."""

import ast
import hashlib
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]


@cache
def code_digest(stage: str) -> str:
    """Digest of `scripts/{stage}.py` and of every module under `scripts/` that it imports, directly or not.

    Built from `ast.dump` without docstrings: comments, blank lines and docstrings do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(modules_of(SCRIPTS / f"{stage}.py")):
        digest.update(str(path.relative_to(SCRIPTS)).encode())
        digest.update(ast.dump(_without_docstrings(ast.parse(path.read_text(encoding="utf-8")))).encode())
    return digest.hexdigest()[:16]


def modules_of(start: Path) -> set[Path]:
    """`start` and every file under `scripts/` reachable from it by import, late imports inside functions included."""
    found: set[Path] = set()
    queue = [start]
    while queue:
        path = queue.pop()
        if path in found:
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
