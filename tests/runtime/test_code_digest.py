import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from loragrid.runtime import code_digest


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(code_digest, "SCRIPTS", tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "__init__.py").write_text("")
    (tmp_path / "study" / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "study" / "other.py").write_text("x = 1\n")
    (tmp_path / "train.py").write_text("def main():\n    from study.sums import add\n    return add(1, 2)\n")
    monkeypatch.setattr(code_digest, "_cache_file", lambda: tmp_path / "kept.json")
    monkeypatch.setattr(code_digest.sys, "dont_write_bytecode", False)
    yield tmp_path
    # Tests that follow in this process ask for the digests of the real scripts.
    code_digest.code_digest.cache_clear()
    code_digest._known.cache_clear()


def fresh(stage: str = "train") -> str:
    code_digest.code_digest.cache_clear()
    code_digest._known.cache_clear()
    return code_digest.code_digest(stage)


def test_comments_and_docstrings_do_not_count(scripts: Path) -> None:
    before = fresh()
    (scripts / "study" / "sums.py").write_text(
        '"""Sums."""\n\n\ndef add(a, b):\n    """Add."""\n    # why\n    return a + b\n'
    )
    assert fresh() == before


def test_logic_of_a_module_imported_late_counts(scripts: Path) -> None:
    before = fresh()
    (scripts / "study" / "sums.py").write_text("def add(a, b):\n    return a - b\n")
    assert fresh() != before


def test_a_module_that_is_not_imported_does_not_count(scripts: Path) -> None:
    before = fresh()
    (scripts / "study" / "other.py").write_text("x = 2\n")
    assert fresh() == before


def test_what_only_refuses_does_not_count_nor_what_it_imports(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_digest, "IGNORED", ("study/rules.py",))
    (scripts / "study" / "rules.py").write_text("from study.other import x\n")
    (scripts / "train.py").write_text("from study import rules, sums\n")
    before = fresh()
    (scripts / "study" / "rules.py").write_text("from study.other import x\nx += 1\n")
    (scripts / "study" / "other.py").write_text("x = 3\n")
    assert fresh() == before
    (scripts / "study" / "sums.py").write_text("def add(a, b):\n    return a - b\n")
    assert fresh() != before


def test_a_second_call_parses_nothing_and_finds_the_same(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fresh()
    with monkeypatch.context() as patch:
        patch.setattr(code_digest.ast, "parse", lambda content: pytest.fail("parsed again"))
        assert fresh() == before
    (scripts / "study" / "sums.py").write_text("def add(a, b):\n    return a - b\n")
    assert fresh() != before


@pytest.mark.parametrize("kept", ["", "[]", "{", "\x00"])
def test_a_torn_cache_is_made_anew(scripts: Path, kept: str) -> None:
    before = fresh()
    (scripts / "kept.json").write_text(kept)
    assert fresh() == before
    assert json.loads((scripts / "kept.json").read_text())


def test_without_a_place_to_write_nothing_is_kept(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fresh()
    monkeypatch.setattr(code_digest, "_cache_file", lambda: scripts / "train.py" / "kept.json")
    assert fresh() == before


@pytest.mark.parametrize("stage", ["prepare_data", "train", "score"])
def test_what_only_a_search_uses_runs_no_other_stage_again(stage: str) -> None:
    without = [code_digest.SCRIPTS / name for name in code_digest.IGNORED]
    names = {path.name for path in code_digest.modules_of(code_digest.SCRIPTS / f"{stage}.py", without=without)}
    assert f"{stage}.py" in names and "study_file.py" in names
    assert names.isdisjoint({"search_space.py", "search.py", "schema.py", "validation.py", "tune.py"})
