"""GGUF: the converter's command, its failures, and the measurement through llama-cpp-python, by stand-ins."""

import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

import export
from loragrid.errors import Failed, UserError
from loragrid.exporting import gguf
from loragrid.exporting.measuring import Form, Job, measure, request_of
from loragrid.exporting.questions import Question
from tests.exporting.conftest import Finished

CONVERTER = """
import shutil, sys
merged, outfile = sys.argv[1], sys.argv[sys.argv.index("--outfile") + 1]
if "--vocab-only" in sys.argv and "unknown" in open(f"{merged}/config.json").read():
    sys.exit("NotImplementedError: BPE pre-tokenizer was not recognized")
open(outfile, "w").write(merged)
"""


@pytest.fixture
def llama_cpp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of llama.cpp whose converter writes the path of the merged model."""
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    (folder / gguf.SCRIPT).write_text(CONVERTER)
    monkeypatch.setenv(gguf.VARIABLE, str(folder))
    return folder


def test_without_a_converter_one_line_says_how_to_get_it(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_process: list[Any]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(gguf.VARIABLE, raising=False)
    with pytest.raises(UserError, match=r"^gguf: .*is not on PATH\)\. Fix: git clone .*llama\.cpp.*LLAMA_CPP") as found:
        finished.export(gguf="q8_0")
    assert "\n" not in str(found.value) and not in_process


def test_a_base_that_the_converter_refuses_is_said_before_the_work(
    finished: Finished, llama_cpp_folder: Path, tmp_path: Path, in_process: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("unknown")
    monkeypatch.setattr(export, "resolve_folder", lambda _: (tmp_path, None))
    with pytest.raises(Failed, match=r"^gguf: llama\.cpp's converter refuses the model \(NotImplementedError: BPE"):
        finished.export(gguf="f32")
    assert not in_process


def test_a_file_that_cannot_be_measured_is_exported_and_said_so(
    finished: Finished, llama_cpp_folder: Path, in_process: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "can_measure", lambda: False)
    out = finished.export(gguf="q8_0", ollama=True)
    assert (out / "gguf" / "model-q8_0.gguf").is_file() and [form.kind for form in in_process] == ["adapter", "merged"]
    assert export.NO_LLAMA_CPP in (out / "README.md").read_text()
    assert (out / "ollama" / "Modelfile").read_text().startswith("FROM ../gguf/model-q8_0.gguf\n")


class Llama:
    """llama_cpp.Llama, computed by transformers from the folder that the stand-in converter has noted in the file."""

    def __init__(self, path: str, *, n_ctx: int, logits_all: bool, **options: Any) -> None:
        import numpy as np
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = Path(path).read_text()
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").float()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model, self.ids, self.n_ctx = self, [], n_ctx
        self.scores = np.zeros((n_ctx, self.network.config.vocab_size))

    @property
    def n_tokens(self) -> int:
        return len(self.ids)

    def reset(self) -> None:
        self.ids = []

    def eval(self, ids: list[int]) -> None:
        import torch

        self.ids += ids
        assert len(self.ids) <= self.n_ctx
        with torch.no_grad():
            self.scores[: len(self.ids)] = self.network(torch.tensor([self.ids])).logits[0].numpy()

    def tokenize(self, text: bytes, *, add_bos: bool, special: bool) -> list[int]:
        assert special and not add_bos
        return self.tokenizer(text.decode(), add_special_tokens=False).input_ids


@pytest.fixture
def llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("llama_cpp")
    module.__spec__ = ModuleSpec("llama_cpp", None)  # it is looked for by others too
    module.Llama = Llama
    module.llama_model_get_vocab = lambda model: model
    module.llama_vocab_is_eog = lambda model, token: token == model.tokenizer.eos_token_id
    monkeypatch.setitem(sys.modules, "llama_cpp", module)


def test_a_gguf_file_is_measured_as_the_merged_model_is(
    finished: Finished, llama_cpp: None, in_process: list[Any], tmp_path: Path
) -> None:
    merged = finished.export("full") / "merged"
    (tmp_path / "model.gguf").write_text(str(merged))
    questions = [Question("What is 2 and 2?", None, 9), Question(None, [9, 30, 31], 7)]
    run = finished.run("full")
    job = Job(heldout=run.data / "heldout.parquet", questions=questions, batch_size=4, threads=1)
    found, wanted = (
        measure(request_of(form, job))
        for form in (
            Form(kind="gguf", folder=tmp_path / "model.gguf", tokenizer=merged),
            Form(kind="merged", folder=merged),
        )
    )
    assert found.loss == pytest.approx(wanted.loss, abs=0.002) and found.rows == wanted.rows == 9
    assert found.prompts == wanted.prompts and found.answers == wanted.answers and all(found.answers)
