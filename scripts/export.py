"""Export a finished run: adapter, merged model, GGUF, Ollama, each measured beside the run, and a card.

    export.py --study FILE --results FOLDER [--run RUN] [--gguf q8_0] [--ollama] [--accept] [--page REPORT]
              [--push OWNER/NAME [--public]]

Writes export/RUN/ in the folder of the study's results: adapter/ (PEFT; none if all weights were trained), merged/
(16 bits), gguf/ and ollama/ if they are asked for, README.md, report.html and, last, export.json. A form that is not
the run by its held-out loss and greedy answers ends the stage, unless it is accepted. Without --run it takes the run
that the page names.
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

from loragrid.errors import Failed, UserError, log_option, print_line, run_main, summary_line
from loragrid.exporting.card import Card, card_text
from loragrid.exporting.export_record import export_key, kept_parities, write_export_record
from loragrid.exporting.exported_run import ExportedRun, find_run, run_to_take
from loragrid.exporting.gguf import TYPES, can_measure, converter, write_gguf
from loragrid.exporting.measuring import Form, Job, measure_form
from loragrid.exporting.merging import MergedFacts, write_merged
from loragrid.exporting.ollama import write_modelfile
from loragrid.exporting.parity import Parity, parity, parity_with_study
from loragrid.exporting.peft_form import write_peft_form
from loragrid.exporting.push import check_push, push_folder
from loragrid.exporting.questions import questions_of
from loragrid.exporting.vllm_measuring import vllm_is_installed
from loragrid.models.adapter_card import CARD
from loragrid.models.adapter_files import ADAPTER
from loragrid.models.loading import load_tokenizer
from loragrid.records.seal import check_sealed
from loragrid.runtime.atomic_files import atomic_folder, write_text
from loragrid.runtime.gpu_locks import take_one_gpu
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.study.study_file import Study, load_study

MERGED, GGUF, VLLM, MODELFILE = "merged", "gguf", "vllm", Path("ollama", "Modelfile")
NO_LLAMA_CPP = (
    "The GGUF file was not measured: llama-cpp-python is not installed. To measure it: pip install llama-cpp-python, "
    "and export again."
)


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is asked for: a `gguf` type or None, a Modelfile for Ollama, forms that differ from the run, the `page`."""

    gguf: str | None = None
    ollama: bool = False
    accept: bool = False
    page: Path | None = None


def export_run(*, study: Study, results: Path, name: str | None = None, request: ExportRequest) -> Path:
    """Export a run and return the folder; an export of the same things is kept as it is.

    Raises `UserError` for a run without weights, and `Failed` if a form is not the run and that is not accepted; then
    an earlier export stays, and nothing else.
    """
    if request.gguf is not None:
        converter()  # before the work
    run = find_run(study, results, name or run_to_take(study, results))
    out = results / "export" / run.name
    asked = request.gguf, request.ollama, can_measure(), vllm_is_installed()
    key = export_key(run, asked=asked, page=request.page)
    kept = kept_parities(out, key=key)
    if kept is not None:
        judge(run, kept, accept=request.accept)
        print_line(f"[{run.name}] exported before with the same code and files: {out}")
        return out
    with atomic_folder(out) as folder:
        merged = write_forms(run, folder, request)
        found, notes = measure_forms(run, folder)
        judge(run, found, accept=request.accept)
        write_card(run, folder, Card(merged, found, notes, request.page), key=key)
    print_line(f"[{run.name}] exported to {out}")
    return out


def write_forms(run: ExportedRun, folder: Path, request: ExportRequest) -> MergedFacts:
    """Write all forms of the run that are asked for."""
    if not run.is_whole:
        write_peft_form(run, folder / ADAPTER)
    merged = write_merged(run, folder / MERGED)
    print_line(f"[{run.name}] merged into {merged.merged_into}; its weights are {merged.dtype}")
    source = f"../{MERGED}"
    if request.gguf is not None:
        file = folder / GGUF / f"model-{request.gguf}.gguf"
        write_gguf(folder / MERGED, file, request.gguf)
        source = f"../{GGUF}/{file.name}"
    if request.ollama:
        write_modelfile(source, folder / MERGED, folder / MODELFILE)
    return merged


def measure_forms(run: ExportedRun, folder: Path) -> tuple[list[Parity], list[str]]:
    """Measure every form in a process of its own; what was found, and what could not be measured and why."""
    scoring = run.study.scoring
    job = Job(
        heldout=run.data / "heldout.parquet",
        questions=questions_of(run, load_tokenizer(run.entry)),
        batch_size=scoring.batch_size,
        threads=scoring.threads,
    )
    trained = Form(kind=ADAPTER, folder=folder / ADAPTER, entry=run.entry)
    if run.is_whole:
        trained = Form(kind="whole", folder=run.trained, entry=run.entry)
    reference = measure_form(trained, job)
    found, notes = [print_parity(run, parity_with_study(trained.kind, reference, run))], []
    merged = folder / MERGED
    found.append(print_parity(run, parity(MERGED, measure_form(Form(kind=MERGED, folder=merged), job), reference)))
    for file in folder.glob(f"{GGUF}/*.gguf"):
        if can_measure():
            form = Form(kind=GGUF, folder=file, tokenizer=merged)
            found.append(print_parity(run, parity(GGUF, measure_form(form, job), reference)))
        else:
            notes.append(NO_LLAMA_CPP)
    if vllm_is_installed():
        try:
            found.append(print_parity(run, parity(VLLM, measure_form(Form(kind=VLLM, folder=merged), job), reference)))
        except Failed as failure:  # such as a card that vLLM does not run on
            notes.append(f"The merged model was not measured in vLLM: {failure}.")
    for note in notes:
        print_line(f"[{run.name}] {note}")
    return found, notes


def print_parity(run: ExportedRun, found: Parity) -> Parity:
    """Print what was found, and return it."""
    verdict = "matches" if found.holds else "differs from"
    print_line(f"[{run.name}] {found.form} {verdict} {found.reference}: {found.text}")
    return found


def judge(run: ExportedRun, found: list[Parity], *, accept: bool) -> None:
    """Raise `Failed` if a form is not the run, unless that is accepted."""
    wrong = [f"{one.form} ({one.text})" for one in found if not one.holds]
    if wrong and not accept:
        raise Failed(
            f"{run.name}: not the run by more than is allowed: {'; '.join(wrong)}. Nothing was exported. "
            "To keep it all the same: --config accept=true"
        )


def write_card(run: ExportedRun, folder: Path, card: Card, *, key: str) -> None:
    """Write the card, the study's page beside it and, last, the record."""
    if card.has_page:
        check_sealed(card.page)
        shutil.copyfile(card.page, folder / "report.html")
    write_text(folder / CARD, card_text(run, card))
    write_export_record(run, folder, card, key=key)


def main() -> None:
    """Map the command line to `export_run`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__), parents=[log_option()])
    parser.add_argument("--study", required=True)
    parser.add_argument("--results", type=Path, required=True, help="folder of the study's results")
    parser.add_argument("--run", help="id of the run (default: the one that the page names)")
    parser.add_argument("--gguf", metavar="TYPE", help=f"also write a GGUF file of this type: {', '.join(TYPES)}")
    parser.add_argument("--ollama", action="store_true", help="also write a Modelfile for Ollama")
    parser.add_argument("--accept", action="store_true", help="keep forms that differ from the run")
    parser.add_argument("--push", metavar="OWNER/NAME", help="push the export to this repository of the hub")
    parser.add_argument("--public", action="store_true", help="with --push: everybody may read the repository")
    parser.add_argument("--page", type=Path, help="the study's report, to go with the export")
    options = parser.parse_args()
    if options.gguf not in (None, *TYPES):
        raise UserError(f"--gguf: not a type of llama.cpp's converter ({options.gguf}). Fix: use {', '.join(TYPES)}.")
    quiet_libraries()
    if options.push is not None:
        check_push(options.push)
    take_one_gpu()
    request = ExportRequest(gguf=options.gguf, ollama=options.ollama, accept=options.accept, page=options.page)
    folder = export_run(study=load_study(options.study), results=options.results, name=options.run, request=request)
    if options.push is not None:
        push_folder(folder, options.push, public=options.public)


if __name__ == "__main__":
    run_main(main)
