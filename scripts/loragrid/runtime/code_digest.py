"""A digest of a stage's logic, so that Snakemake re-runs a stage when its code changes and not when
a comment does.

Every call of Snakemake needs the digests of all stages, so the parsed result of a file is cached
beside Python's own cache.
"""

import ast
import contextlib
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from loragrid.paths import SCRIPTS
from loragrid.runtime.atomic_files import write_text

# Modules that only refuse, choose and share cards, or copy results: they decide whether and where a stage runs, never
# its result.
IGNORED = (
    *(f"loragrid/backup/{name}.py" for name in ("__init__", "copier", "copies", "places", "results")),
    "loragrid/models/base_checks/tensors.py",
    "loragrid/models/base_checks/values.py",
    "loragrid/models/download_room.py",
    "loragrid/runtime/gpu_locks.py",
    "loragrid/runtime/optional_packages.py",
    "loragrid/runtime/secrets.py",
    "loragrid/runtime/visible_gpus.py",
    "loragrid/study/schema.py",
    "loragrid/training/ranks/launcher.py",
    "loragrid/training/ranks/split_base.py",
    "loragrid/training/run_backup.py",
    *(
        f"loragrid/study/checks/{name}.py"
        for name in ("validation", "point_validation", "run_length", "tune_validation", "likely_slips")
    ),
    "loragrid/workflow/run_checks.py",
)


class _Module(NamedTuple):
    logic: str  # digest of the syntax tree without docstrings
    imports: list[str]  # dotted names that may be modules, late imports inside functions included


@cache
def code_digest(stage: str) -> str:
    """Digest of `scripts/{stage}.py` and of every module under `scripts/` that it imports, directly
    or not, except `IGNORED`.

    Built from `ast.dump` without docstrings: comments, blank lines and docstrings do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(modules_of(SCRIPTS / f"{stage}.py", without=[SCRIPTS / name for name in IGNORED])):
        digest.update(str(path.relative_to(SCRIPTS)).encode())
        digest.update(_read(path).logic.encode())
    return digest.hexdigest()[:16]


def modules_of(start: Path, *, without: Sequence[Path] = ()) -> set[Path]:
    """`start` and every file under `scripts/` that it imports, directly or not, late imports inside
    functions included.

    Files in `without`, and those reachable only through them, are left out.
    """
    found: set[Path] = set()
    queue, here, known = [start], _modules_here(), len(_known())
    while queue:
        path = queue.pop()
        if path in found or path in without:
            continue
        found.add(path)
        queue += _files(_read(path).imports, here)
    if len(_known()) > known and not sys.dont_write_bytecode:
        with contextlib.suppress(OSError):  # a read-only checkout is only slower
            write_text(_cache_file(), json.dumps(_known()))
    return found


def _modules_here() -> dict[str, Path]:
    """Dotted name → file, of all modules under `scripts/`."""
    files = {file.relative_to(SCRIPTS).with_suffix("").parts: file for file in SCRIPTS.rglob("*.py")}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): file for parts, file in files.items()}


def _files(imports: Iterable[str], here: Mapping[str, Path]) -> list[Path]:
    """Files of the modules that an import executes: `a.b.c` executes `a` and `a.b` too."""
    names = {
        ".".join(parts[:depth]) for parts in (name.split(".") for name in imports) for depth in range(1, len(parts) + 1)
    }
    return [here[name] for name in names & here.keys()]


def _read(path: Path) -> _Module:
    content = path.read_bytes()
    key = hashlib.sha256(_this_file() + content).hexdigest()
    if key not in _known():
        tree = ast.parse(content)
        _known()[key] = [*_Module(imports=_imports(tree), logic=_logic(tree))]
    return _Module(*_known()[key])


def _imports(tree: ast.Module) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _logic(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


@cache
def _known() -> dict[str, list]:
    """Results of earlier calls, by the digest of the file's content; a damaged cache is ignored."""
    try:
        kept = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


@cache
def _this_file() -> bytes:
    """Part of the cache's keys: another version of this module must not reuse this one's
    results."""
    return Path(__file__).read_bytes()


def _cache_file() -> Path:
    return Path(__file__).parent / "__pycache__" / f"logic.{sys.implementation.cache_tag}.json"
