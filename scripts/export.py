"""Export a finished run: adapter, merged model, GGUF, Ollama, each measured beside the run, and a card.

    export.py --study FILE --results FOLDER [--run RUN] [--dtype float32] [--gguf q8_0] [--ollama] [--accept]
              [--page REPORT] [--push OWNER/NAME [--public]]

Writes export/RUN/ in the folder of the study's results: adapter/ (PEFT; none if all weights were trained), merged/,
gguf/ and ollama/ if they are asked for, README.md, report.html and, last, export.json. A form that
differs from the run in held-out loss or greedy answers ends the stage and leaves everything in export/RUN.refused/,
unless it is accepted.
Without --run it takes the run that the page names.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loragrid.errors import Failed, UserError, log_option, print_line, run_main, summary_line
from loragrid.exporting.card import Card, card_text
from loragrid.exporting.export_record import export_key, kept_parities, write_export_record
from loragrid.exporting.exported_run import ExportedRun, find_run, run_to_take
from loragrid.exporting.gguf import TYPES, can_measure, check_converts, converter, write_gguf
from loragrid.exporting.measuring import Form, Job, common_dtype, measure_form
from loragrid.exporting.merged_dtype import MergedForm, write_merged_form
from loragrid.exporting.ollama import write_modelfile
from loragrid.exporting.parity import Parity, parity, parity_with_study, signed_nats
from loragrid.exporting.peft_form import write_peft_form
from loragrid.exporting.private_paths import private_paths, without_paths
from loragrid.exporting.push import check_push, push_folder
from loragrid.exporting.questions import Measured, questions_of
from loragrid.exporting.vllm_measuring import vllm_is_installed
from loragrid.models.adapter_card import CARD
from loragrid.models.adapter_files import ADAPTER
from loragrid.models.compute_dtype import DTYPES
from loragrid.models.loading import load_tokenizer
from loragrid.models.model_files import resolve_folder
from loragrid.records.seal import check_sealed
from loragrid.runtime.atomic_files import atomic_folder, replace_folder, write_text
from loragrid.runtime.gpu_locks import take_one_gpu
from loragrid.runtime.progress_lines import ProgressLines
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.study.study_file import Study, load_study

MERGED, GGUF, VLLM, MODELFILE = "merged", "gguf", "vllm", Path("ollama", "Modelfile")
NO_LLAMA_CPP = (
    "The GGUF file was not measured: llama-cpp-python is not installed. To measure it: pip install llama-cpp-python, "
    "and export again."
)


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is asked for: a `dtype` of the merged model and a `gguf` type, each or None; a Modelfile for Ollama; to
    accept forms that differ from the run; the `page`."""

    dtype: str | None = None
    gguf: str | None = None
    ollama: bool = False
    accept: bool = False
    page: Path | None = None


def export_run(*, study: Study, results: Path, name: str | None = None, request: ExportRequest) -> Path:
    """Export a run and return the folder; an export of the same things is kept as it is.

    Raises `UserError` for a run without weights, and `Failed` if a form differs from the run and that is not accepted;
    then an earlier export stays, and the new one waits in RUN.refused and can be accepted without another measurement.
    """
    if request.gguf is not None:
        converter()  # before the work
    run = find_run(study, results, name or run_to_take(study, results))
    out = results / "export" / run.name
    refused = out.with_name(f"{run.name}.refused")
    asked = request.dtype, request.gguf, request.ollama, can_measure(), vllm_is_installed()
    key = export_key(run, asked=asked, page=request.page)
    if (kept := kept_parities(out, key=key)) is not None:
        judge(run, kept, out, accept=request.accept)
        print_line(f"[{run.name}] exported before with the same code and files: {out}")
        return out
    found = kept_parities(refused, key=key)
    if found is None:
        with atomic_folder(refused) as folder:
            card = write_and_measure(run, folder, request)
            write_card(run, folder, card, key=key)
        found = card.parities
    judge(run, found, refused, accept=request.accept)
    replace_folder(refused, out)
    print_line(f"[{run.name}] exported to {out}")
    return out


def write_and_measure(run: ExportedRun, folder: Path, request: ExportRequest) -> Card:
    """Write all forms of the run that are asked for, and measure each in a process of its own; what the card says."""
    job, dtype = job_of(run), common_dtype(run.record.total_parameters)
    if request.gguf is not None:
        with ProgressLines(f"[{run.name}] checking that the base converts to GGUF", total=1, items="models"):
            check_converts(resolve_folder(run.entry)[0])  # before the work
    if not run.is_whole:
        write_peft_form(run, folder / ADAPTER)
    reference, beside_study = measure_reference(run, folder, job, dtype)

    def compare(place: Path, stored: str) -> Parity:
        measured = measure_form(Form(kind=MERGED, folder=place, dtype=dtype), job)
        return print_parity(run, parity(f"{MERGED} in {stored}", measured, reference))

    merged = write_merged_form(run, folder / MERGED, dtype=request.dtype, compare=compare)
    found, notes = [beside_study, merged.parity], own_arithmetic(merged)
    write_converted(run, folder, request)
    for form in other_forms(folder, notes):
        try:
            found.append(print_parity(run, parity(form.kind, measure_form(form, job), reference)))
        except Failed as failure:  # such as a card that vLLM does not run on
            if form.kind != VLLM:
                raise
            notes.append(f"The merged model was not measured in vLLM: {failure}.")
    for note in notes:
        print_line(f"[{run.name}] {note}")
    return Card(merged.facts, found, notes, request.page, merged.rejected)


def own_arithmetic(merged: MergedForm) -> list[str]:
    """A note with the merged model's held-out loss as users load it, if forms are compared in another dtype."""
    loss = merged.parity.own_loss
    if loss is None:
        return []
    return [
        f'Loaded with dtype="auto", the merged model computes in {merged.facts.dtype}: its held-out loss is then '
        f"{loss:.4f} ({signed_nats(loss - merged.parity.reference_loss)} nats)."
    ]


def job_of(run: ExportedRun) -> Job:
    """What every form of the run is measured on."""
    return Job(
        heldout=run.data / "heldout.parquet",
        questions=questions_of(run, load_tokenizer(run.entry)),
        batch_size=run.study.scoring.batch_size,
        threads=run.study.scoring.threads,
        label=f"[{run.name}]",
    )


def measure_reference(run: ExportedRun, folder: Path, job: Job, dtype: str | None) -> tuple[Measured, Parity]:
    """The exported adapter, or whole model, in the dtype of comparisons; and beside what the study measured."""
    trained = Form(kind=ADAPTER, folder=folder / ADAPTER, entry=run.entry)
    if run.is_whole:
        trained = Form(kind="whole", folder=run.trained, entry=run.entry)
    # As the study computed it.
    measured = measure_form(trained, job)
    beside_study = print_parity(run, parity_with_study(trained.kind, measured, run))
    if dtype is not None and run.entry.precision != "32bit":
        measured = measure_form(replace(trained, dtype=dtype), job)
    return measured, beside_study


def write_converted(run: ExportedRun, folder: Path, request: ExportRequest) -> None:
    """Write the forms that are made of the merged one and are asked for."""
    source = f"../{MERGED}"
    if request.gguf is not None:
        file = folder / GGUF / f"model-{request.gguf}.gguf"
        with ProgressLines(f"[{run.name}] converting to GGUF", total=1, items="files"):
            write_gguf(folder / MERGED, file, request.gguf)
        source = f"../{GGUF}/{file.name}"
    if request.ollama:
        write_modelfile(source, folder / MERGED, folder / MODELFILE)


def other_forms(folder: Path, notes: list[str]) -> list[Form]:
    """The forms that other programs run and that can be measured here; `notes` gets what cannot."""
    merged, forms = folder / MERGED, []
    for file in folder.glob(f"{GGUF}/*.gguf"):
        if can_measure():
            forms.append(Form(kind=GGUF, folder=file, tokenizer=merged))
        else:
            notes.append(NO_LLAMA_CPP)
    return forms + ([Form(kind=VLLM, folder=merged)] if vllm_is_installed() else [])


def print_parity(run: ExportedRun, found: Parity) -> Parity:
    """Print what was found, and return it."""
    verdict = "matches" if found.holds else "differs from"
    print_line(f"[{run.name}] {found.form} {verdict} {found.reference}: {found.text}")
    return found


def judge(run: ExportedRun, found: Sequence[Parity], folder: Path, *, accept: bool) -> None:
    """Raise `Failed` if a form differs from the run by more than is allowed, unless that is accepted."""
    wrong = [f"{one.form} ({one.text})" for one in found if not one.holds]
    if not wrong or accept:
        return
    fix = "--config accept=true keeps it as it was measured"
    if any(one.form.startswith(MERGED) and "float32" not in one.form for one in found if not one.holds):
        fix += "; --config dtype=float32 merges without rounding, in twice the bytes"
    raise Failed(
        f"{run.name}: differs from the run by more than is allowed: {'; '.join(wrong)}. Nothing was exported; "
        f"the files are in {folder}. Fix: {fix}."
    )


def write_card(run: ExportedRun, folder: Path, card: Card, *, key: str) -> None:
    """Write the card, the study's page beside it and, last, the record."""
    paths = private_paths(run.study, run.results)
    if card.has_page:
        check_sealed(card.page)
        write_text(folder / "report.html", without_paths(card.page.read_text(encoding="utf-8"), paths))
    write_text(folder / CARD, without_paths(card_text(run, card), paths))
    write_export_record(run, folder, card, key=key)


def main() -> None:
    """Map the command line to `export_run`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__), parents=[log_option()])
    parser.add_argument("--study", required=True)
    parser.add_argument("--results", type=Path, required=True, help="folder of the study's results")
    parser.add_argument("--run", help="id of the run (default: the one that the page names)")
    parser.add_argument("--dtype", choices=DTYPES, help="of the merged model (default: the 16-bit one that fits)")
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
    request = ExportRequest(
        dtype=options.dtype, gguf=options.gguf, ollama=options.ollama, accept=options.accept, page=options.page
    )
    study = load_study(options.study)
    folder = export_run(study=study, results=options.results, name=options.run, request=request)
    if options.push is not None:
        push_folder(folder, options.push, public=options.public, paths=private_paths(study, options.results))


if __name__ == "__main__":
    run_main(main)
