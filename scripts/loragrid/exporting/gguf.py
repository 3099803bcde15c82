"""GGUF of a merged model, by llama.cpp's converter, which is a script of its source and no package."""

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from loragrid.errors import Failed, UserError, one_line

# What the converter writes by itself; smaller types are made from these by llama-quantize.
TYPES = ("f32", "f16", "bf16", "q8_0")
SCRIPT, VARIABLE = "convert_hf_to_gguf.py", "LLAMA_CPP"


def converter() -> list[str]:
    """The command of the converter, from the folder in LLAMA_CPP or from PATH; raises `UserError` without one."""
    folder = os.environ.get(VARIABLE)
    script = Path(folder, SCRIPT) if folder else shutil.which(SCRIPT)
    if script is None or not Path(script).is_file():
        looked = f"{script} is missing" if folder else f"{SCRIPT} is not on PATH"
        raise UserError(
            f"gguf: llama.cpp's converter is not installed ({looked}). Fix: git clone --depth 1 "
            f"https://github.com/ggml-org/llama.cpp, pip install gguf sentencepiece, and set {VARIABLE} to its folder."
        )
    return [sys.executable, str(script)]


def check_converts(base: Path) -> None:
    """Raise `Failed` if the converter does not know the architecture or the tokenizer of the model in that folder."""
    with tempfile.TemporaryDirectory() as place:
        _convert(base, Path(place, "vocabulary.gguf"), "--vocab-only")


def write_gguf(merged: Path, file: Path, kind: str) -> None:
    """Convert the merged model to GGUF of that type; raises `Failed` with the converter's last line."""
    file.parent.mkdir(parents=True)
    _convert(merged, file, "--outtype", kind)


def _convert(folder: Path, file: Path, *options: str) -> None:
    command = [*converter(), str(folder), "--outfile", str(file), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    sys.stderr.write(done.stdout + done.stderr)
    if done.returncode != 0 or not file.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it printed nothing"]
        raise Failed(f"gguf: llama.cpp's converter refuses the model ({one_line(lines[-1])[:300]})")


def can_measure() -> bool:
    """Whether the package that loads GGUF is installed."""
    return find_spec("llama_cpp") is not None
