from pathlib import Path

import pytest

from study import digest


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(digest, "SCRIPTS", tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "__init__.py").write_text("")
    (tmp_path / "study" / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "study" / "other.py").write_text("x = 1\n")
    (tmp_path / "train.py").write_text("def main():\n    from study.sums import add\n    return add(1, 2)\n")
    return tmp_path


def fresh(stage: str = "train") -> str:
    digest.code_digest.cache_clear()
    return digest.code_digest(stage)


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
