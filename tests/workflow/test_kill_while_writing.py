"""Tables and page are whole or absent after a kill at any file that compare or report writes."""

import os
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import compare
import report
from tests.fixtures import synthetic

# --- 18: killed while writing


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    synthetic.make_results(synthetic.make_study(folder), folder / "results")
    return folder


def write_all(folder: Path, out: Path) -> None:
    """Compare and report, as their rules call them."""
    study = synthetic.make_study(folder)
    compare.compare(study=study, results=folder / "results", out=folder / "results/compare")
    report.report(study=study, results=folder / "results", out=out)


def files_of(*folders: Path) -> dict[str, bytes]:
    """Content by folder and name: both folders have a seal."""
    files = [(folder, file) for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder.parent)): file.read_bytes() for folder, file in files}


def kill_at(number: int, work: Callable[[], None]) -> bool:
    """Work in a child that dies by SIGKILL with its n-th file half written. Returns whether it reached that file."""
    child = os.fork()
    if child == 0:
        left = number

        def half_written(handle: int) -> None:
            nonlocal left
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                return
            left -= 1
            if left < 0:
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = half_written
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.long
def test_tables_and_page_are_whole_or_absent_after_a_kill_at_any_file(scored: Path, tmp_path: Path) -> None:
    """No file under its final name is half written, compare.json and the page come last, and the next call finishes."""
    tables, pages = scored / "results/compare", tmp_path / "reports"
    write_all(scored, pages / "report.html")
    whole = files_of(tables, pages)
    for folder in (tables, pages):
        shutil.rmtree(folder)
    for number in (0, 4, len(whole) // 2, len(whole) - 1):  # a table, compare.json or near it, a picture, the page
        assert kill_at(number, lambda: write_all(scored, pages / "report.html"))
        found = {name: content for name, content in files_of(tables, pages).items() if not name.endswith(".partial")}
        assert found.items() <= whole.items() and len(found) == number
        assert ("compare/compare.json" in found) == (number > 4), sorted(found)
        assert "reports/report.html" not in found
    write_all(scored, pages / "report.html")
    found = {name: content for name, content in files_of(tables, pages).items() if not name.endswith(".partial")}
    assert found == whole
