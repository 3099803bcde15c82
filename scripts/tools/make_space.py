"""Space: writes a folder with the app, its models and its requirements, for a Hugging Face Space or any machine.

    make_space.py [--study demo] [--run RUN | --adapter FOLDER_OR_HUB_ID [--model KEY]] [--out results/demo/space]

The user uploads the folder; this script does not. The folder holds copies of adapters and local base models. A base
model from the hub is downloaded when the app starts.
"""

if __name__ == "__main__":
    import check_environment  # noqa: F401  ends the process if packages are missing

import argparse
import json
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from loragrid.app.catalogue import Catalogue, to_json
from loragrid.app.command_line import add_catalogue_options, catalogue_from_options
from loragrid.app.subjects import AppModel
from loragrid.errors import UserError, print_line, run_main, summary_line
from loragrid.models.model_files import MODEL_FILES
from loragrid.paths import ROOT, SCRIPTS
from loragrid.runtime.atomic_files import atomic_folder, write_text
from loragrid.runtime.code_digest import modules_of
from loragrid.study.adopted import ADAPTER_FILES
from loragrid.study.sections import ModelEntry

CATALOGUE = "catalogue.json"
# The packages that the app imports. `closure` adds their dependencies.
PACKAGES = (
    "gradio icalendar torch transformers peft accelerate safetensors huggingface-hub numpy pyyaml jsonschema".split()
)
PINS = ("requirements.txt", "requirements-app.txt", "requirements-gpu.txt")

ENTRY = '''"""The app of a loragrid study. A Hugging Face Space runs this file; elsewhere: python app.py"""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    from loragrid.app.catalogue import from_json
    from loragrid.app.server import ServerOptions, serve_until_stopped
    from loragrid.errors import run_main

    # A Space sets SYSTEM, and Gradio would then start a second server for editing the running app.
    os.environ.pop("SYSTEM", None)
    port = os.environ.get("GRADIO_SERVER_PORT")
    options = ServerOptions(
        host=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        port=int(port) if port else None,
        on_hub="SPACE_ID" in os.environ,
    )
    run_main(lambda: serve_until_stopped(from_json(HERE / "catalogue.json"), options))
'''

README = """---
title: {quoted_title}
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
pinned: false
---

# {title}

The app of a loragrid study: running plans and answers of its tuned models and their bases, and its report.

- On a Hugging Face Space: push this folder to a Gradio Space. A private Space requires a login.
- Elsewhere: `pip install -r requirements.txt`, then `python app.py`. The app listens on this machine only.

Models: {models}. Check the licences of the base models before you publish this folder.
"""


def make_space(*, catalogue: Catalogue, out: Path) -> None:
    """Write the folder atomically. Raises `UserError` rather than replace a folder of other files."""
    if out.exists() and any(out.iterdir()) and not (out / CATALOGUE).is_file():
        raise UserError(f"--out: the folder holds other files ({out}). Fix: give another folder.")
    with atomic_folder(out) as folder:
        copy_code(folder)
        copied = copy_files(catalogue, folder)
        needs_quantization = any(entry.precision == "4bit" for entry in catalogue.models.values())
        packages = [*PACKAGES, "bitsandbytes"] if needs_quantization else PACKAGES
        write_text(folder / "requirements.txt", "\n".join(closure(packages)) + "\n")
        write_text(folder / "README.md", readme(catalogue))
        write_text(folder / "app.py", ENTRY)
        write_text(folder / CATALOGUE, to_json(copied))


def copy_code(out: Path) -> None:
    """Copy the modules of the package that the app imports, directly or indirectly, and its style sheet."""
    modules = modules_of(SCRIPTS / "app.py") - {SCRIPTS / "app.py"}
    for path in sorted(modules) + sorted((SCRIPTS / "loragrid" / "app").glob("*.css")):
        target = out / path.relative_to(SCRIPTS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def copy_files(catalogue: Catalogue, out: Path) -> Catalogue:
    """Copy local models, adapters and the report into `out`; the catalogue with paths relative to `out`."""
    models = {key: _copy_model(key, entry, out) for key, entry in catalogue.models.items()}
    subjects = tuple(_copy_adapter(subject, out) for subject in catalogue.subjects)
    report = None
    if catalogue.report:
        report = "report.html"
        shutil.copyfile(catalogue.report, out / report)
    return replace(catalogue, models=models, subjects=subjects, report=report)


def _copy_model(key: str, entry: ModelEntry, out: Path) -> ModelEntry:
    folder = out / "models" / key
    if entry.folder is not None:
        folder.mkdir(parents=True)
        for path in sorted(entry.folder.iterdir()):
            if any(path.match(pattern) for pattern in MODEL_FILES):
                shutil.copyfile(path, folder / path.name)
        entry = replace(entry, path=f"models/{key}")
    if entry.chat_template:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(entry.chat_template, folder / "study_template.jinja")
        entry = replace(entry, chat_template=f"models/{key}/study_template.jinja")
    return entry


def _copy_adapter(subject: AppModel, out: Path) -> AppModel:
    if subject.adapter is None:
        return subject
    folder = out / "adapters" / subject.name
    folder.mkdir(parents=True)
    for name in ADAPTER_FILES:
        shutil.copyfile(Path(subject.adapter) / name, folder / name)
    return replace(subject, adapter=f"adapters/{subject.name}")


def closure(packages: list[str]) -> list[str]:
    """The project's pins of `packages` and of their dependencies in this environment.

    Packages without a pin are left out: they are parts of torch, which pins them itself.
    """
    pins = _read_pins()
    found: set[str] = set()
    queue = [canonicalize_name(name) for name in packages]
    while queue:
        name = queue.pop()
        if name in found or name not in pins:
            continue
        found.add(name)
        queue += _dependencies(name)
    return sorted(pins[name] for name in found)


def _read_pins() -> dict[str, str]:
    """Package → its line in the project's requirements."""
    pins: dict[str, str] = {}
    for file in PINS:
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
            name = canonicalize_name(line.split("==")[0])
            # A pin for all machines replaces one with an environment marker.
            if "==" in line and (name not in pins or ";" in pins[name]):
                pins[name] = line
    return pins


def _dependencies(name: str) -> list[str]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # pinned for another platform or for a GPU
        return []
    requirements = map(Requirement, lines)
    return [canonicalize_name(r.name) for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]


def readme(catalogue: Catalogue) -> str:
    """The Space's README, with the YAML header for the Hub."""
    title = " ".join(catalogue.title.split())
    gradio = _read_pins()["gradio"].removeprefix("gradio==")
    models = ", ".join(f"`{entry.hub or key}`" for key, entry in catalogue.models.items())
    # A JSON string is a valid YAML string for any characters in the title.
    quoted = json.dumps(title, ensure_ascii=False)
    return README.format(title=title, quoted_title=quoted, gradio=gradio, models=models)


def main() -> None:
    """Map the command line to `make_space`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__))
    add_catalogue_options(parser)
    parser.add_argument("--out", type=Path, help="folder to write (default: results/STUDY/space)")
    options = parser.parse_args()
    name, catalogue = catalogue_from_options(options)
    out = options.out or Path("results") / name / "space"
    make_space(catalogue=catalogue, out=out)
    print_line(f"space: wrote {out}; try it with python {out / 'app.py'}, or push it to a Space to publish it")


if __name__ == "__main__":
    run_main(main)
