"""Space: write a folder with the app, its models and its requirements that runs as a Hugging Face Space, or anywhere.

    make_space.py [--study demo] [--run RUN | --adapter FOLDER_OR_HUB_ID [--model KEY]] [--out results/demo/space]

Nothing is uploaded: that is the user's step. The folder holds adapters and local base models as they are; a base from the
hub is fetched there when the app starts.
"""

import argparse
import json
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from loragrid.app.catalogue import ADAPTER_FILES, Catalogue, Subject, to_json
from loragrid.app.command_line import add_catalogue_options, catalogue_from_options
from loragrid.errors import UserError, print_line, run_main
from loragrid.models.model_files import MODEL_FILES
from loragrid.paths import ROOT, SCRIPTS
from loragrid.runtime.atomic_files import atomic_folder, write_text
from loragrid.runtime.code_digest import modules_of
from loragrid.study.sections import ModelEntry

CATALOGUE = "catalogue.json"
# What the app's code imports; what these need in turn is looked up in this environment and in the pins.
PACKAGES = (
    "gradio icalendar torch transformers peft accelerate safetensors huggingface-hub numpy pyyaml jsonschema".split()
)
PINS = ("requirements.txt", "requirements-app.txt", "requirements-gpu.txt")

ENTRY = '''"""The app of a loragrid study. On a Hugging Face Space this file is what runs; elsewhere: python app.py"""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    from loragrid.app.catalogue import from_json
    from loragrid.app.running import run_catalogue
    from loragrid.app.server import ServerOptions
    from loragrid.errors import run_main

    # Without this Gradio would start a second server there, for changing the code of the running app.
    os.environ.pop("SYSTEM", None)
    port = os.environ.get("GRADIO_SERVER_PORT")
    serving = ServerOptions(
        host=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        port=int(port) if port else None,
        on_hub="SPACE_ID" in os.environ,
    )
    run_main(lambda: run_catalogue(from_json(HERE / "catalogue.json"), serving))
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

The app of a loragrid study: running plans and answers of its tuned models beside their untrained bases, and its report.

- On a Hugging Face Space: push this folder to a Space of the Gradio kind. A private Space asks for a login.
- Elsewhere: `pip install -r requirements.txt`, then `python app.py`. It listens on this machine only.

Models: {models}. Whether they may be passed on is said by the licences of the base models.
"""


def make_space(*, catalogue: Catalogue, out: Path) -> None:
    """Write the folder, whole or not at all; one that this script did not write is never replaced."""
    if out.exists() and any(out.iterdir()) and not (out / CATALOGUE).is_file():
        raise UserError(f"{out} holds something else: give another folder with --out")
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
    """Copy the package's modules that the app imports, directly or not, and its style sheet, beside the entry script."""
    modules = modules_of(SCRIPTS / "app.py") - {SCRIPTS / "app.py"}
    for path in sorted(modules) + sorted((SCRIPTS / "loragrid" / "app").glob("*.css")):
        target = out / path.relative_to(SCRIPTS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def copy_files(catalogue: Catalogue, out: Path) -> Catalogue:
    """Copy local models, adapters and the report into `out`; return the catalogue with paths relative to it."""
    models = {key: _copy_model(key, entry, out) for key, entry in catalogue.models.items()}
    subjects = tuple(_copy_adapter(subject, out) for subject in catalogue.subjects)
    if catalogue.report:
        shutil.copyfile(catalogue.report, out / "report.html")
    return replace(catalogue, models=models, subjects=subjects, report="report.html" if catalogue.report else None)


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


def _copy_adapter(subject: Subject, out: Path) -> Subject:
    if subject.adapter is None:
        return subject
    folder = out / "adapters" / subject.name
    folder.mkdir(parents=True)
    for name in ADAPTER_FILES:
        shutil.copyfile(Path(subject.adapter) / name, folder / name)
    return replace(subject, adapter=f"adapters/{subject.name}")


def closure(packages: list[str]) -> list[str]:
    """The pins of `packages` and of all that they need here, in this project's exact versions.

    Packages without a pin are left out: parts of torch that it pins itself.
    """
    pins: dict[str, str] = {}
    for line in [line for name in PINS for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]:
        name = canonicalize_name(line.split("==")[0])
        if "==" in line and (name not in pins or ";" in pins[name]):  # a pin for some machines gives way to one for all
            pins[name] = line
    found: set[str] = set()
    queue = [canonicalize_name(name) for name in packages]
    while queue:
        name = queue.pop()
        if name in found or name not in pins:
            continue
        found.add(name)
        queue += _needs(name)
    return sorted(pins[name] for name in found)


def _needs(name: str) -> list[str]:
    try:
        needs = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # pinned for another platform, or for a GPU
        return []
    wanted = map(Requirement, needs)
    return [canonicalize_name(r.name) for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]


def readme(catalogue: Catalogue) -> str:
    """The Space's front page, with the header that the Hub reads."""
    title = " ".join(catalogue.title.split())
    pin = next(line for line in closure(["gradio"]) if line.startswith("gradio=="))
    models = ", ".join(f"`{entry.hub or key}`" for key, entry in catalogue.models.items())
    quoted = json.dumps(title, ensure_ascii=False)  # a JSON text is a YAML text, whatever signs the title has
    return README.format(title=title, quoted_title=quoted, gradio=pin.removeprefix("gradio=="), models=models)


def main() -> None:
    """Map the command line to `make_space`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_catalogue_options(parser)
    parser.add_argument("--out", type=Path, help="folder to write (results/STUDY/space)")
    options = parser.parse_args()
    name, catalogue = catalogue_from_options(options)
    out = options.out or Path("results") / name / "space"
    make_space(catalogue=catalogue, out=out)
    print_line(f"space: {out} is ready: python {out / 'app.py'} tries it, pushing it to a Space publishes it")


if __name__ == "__main__":
    run_main(main)
