"""Data as people have them, and a base model of this project, read once."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loragrid.planning import gpu_cards
from loragrid.proposing import new_study as new_study_module
from loragrid.proposing.model_findings import ModelFindings, read_model
from loragrid.proposing.request import Request

BASE = "resources/models/llama-s"
ROWS = [(f"What is the capital of land {i}?", f"Town {i * 7 % 311} is, where queen {i} lives.") for i in range(300)]


@pytest.fixture(autouse=True)
def quiet_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No GPU and a core of known speed, and folders for studies and results that are not the project's."""
    monkeypatch.setattr(gpu_cards, "detect_gpu", lambda: None)
    monkeypatch.setattr(gpu_cards, "product_tflops", lambda threads: 0.06 * threads)
    monkeypatch.setattr(new_study_module, "STUDIES", tmp_path / "studies")
    # Earlier results would say how fast this machine is.
    monkeypatch.setattr(new_study_module, "ROOT", tmp_path)


@pytest.fixture(scope="session")
def base() -> ModelFindings:
    return read_model({"path": BASE}, key="llama-s")


@pytest.fixture
def request_for(tmp_path: Path, base: ModelFindings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Request]:
    """A request with the session's base, whose tokenizer is not loaded again."""
    monkeypatch.setattr(new_study_module, "read_model", lambda entry, *, key: base)

    def made(data: Path, **given: Any) -> Request:
        return Request(**{"data": str(data), "model": BASE, "name": "mine"} | given)

    return made


def write_rows(file: Path, *, names: tuple[str, str] = ("question", "answer"), rows: list = ROWS) -> Path:
    """Rows of a prompt and a reply in the form that the file's name tells."""
    text = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
    if file.suffix == ".gz":
        with gzip.open(file, "wt") as packed:
            packed.write(text)
    elif file.suffix in (".csv", ".tsv"):
        with open(file, "w", newline="") as table:
            writer = csv.writer(table, delimiter="\t" if file.suffix == ".tsv" else ",")
            writer.writerows([names, *rows])
    elif file.suffix == ".json":
        file.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    elif file.suffix == ".jsonl":
        file.write_text(text)
    else:
        file.mkdir()
        for part in range(3):
            write_rows(file / f"part{part}.jsonl", names=names, rows=rows[100 * part : 100 * part + 100])
    return file
