"""Prepare a data set of a study for one model: read, check, filter, split, render, tokenise.

    prepare_data.py --study FILE --data DATA_ID --out FOLDER

Writes the output folder as a whole: train.parquet and heldout.parquet (columns row, input_ids and
labels; -100 where a token carries no loss), row_groups.parquet (training rows that a further split
must keep together), card.json, sealed.json (the digests of these files), and source.jsonl if rows were generated.
Each source is read as a stream: once to check its rows and take their keys, by which rows are
chosen, and once for each of the two files to tokenise them.
"""

from loragrid.runtime.delegation.client import delegate_job

if __name__ == "__main__":
    delegate_job()  # before the imports below, which the process that takes it has made or makes anyway

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from loragrid.backup.results import add_backup_option, copy_result
from loragrid.data.data_card import CARD_SCHEMA, set_facts, split_facts, token_facts
from loragrid.data.data_sets import DataSets
from loragrid.data.parallel_rows import row_processes
from loragrid.data.row_warnings import row_warnings
from loragrid.data.source_scan import SourceScans
from loragrid.data.tokenised_rows import tokenise
from loragrid.data.training_data import GROUPS, write_groups
from loragrid.errors import UserError, log_option, print_line, print_result, run_main
from loragrid.models.base_checks.tensors import check_tensors
from loragrid.models.base_checks.values import check_values
from loragrid.models.chat_templates.checked import checked_template
from loragrid.models.chat_templates.template import ChatTemplate
from loragrid.models.find_shape import vocabulary_size
from loragrid.models.loading import context_tokens, load_tokenizer
from loragrid.models.model_files import check_model_folder, resolve_folder
from loragrid.records.seal import SEALED, digests_of, write_seal
from loragrid.runtime.atomic_files import atomic_folder, json_text, write_json
from loragrid.runtime.optional_packages import check_packages
from loragrid.runtime.progress_lines import working
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.study.checks.run_length import check_length
from loragrid.study.grid import Cell
from loragrid.study.sections import ModelEntry
from loragrid.study.study_file import Study, load_study
from loragrid.workflow.run_checks import check_batches

# The files that this stage writes; a folder that holds anything else is never replaced.
OUTPUTS = re.compile(r"card\.json|sealed\.json|(train|heldout|row_groups)\.parquet|source(_\d+)?\.jsonl")


def prepare_data(*, study: Study, data_id: str, out: Path) -> dict[str, Any]:
    """Write the data set `data_id` of a study to the folder `out` and return its data card.

    Raises `UserError` for an unknown data id, a package that training needs and that is not
    installed, an unusable source or chat template, a base whose weights do not fit its
    configuration or its tokenizer, a set without the rows that are asked for, a held-out set that cannot be formed,
    rows longer than the model's context, and a batch larger than the training rows. `out`
    then stays as it was.
    """
    cell = _cell_of(study, data_id)
    _check_packages(study, data_id)
    _check_replaceable(out)
    with atomic_folder(out) as folder:
        with working(f"[{data_id}] reading and splitting the rows"):
            sets = DataSets(study, SourceScans(folder))
            heldout = sets.heldout_rows()
            rows = sets.training_rows(cell.settings.data, heldout)
        with working(f"[{data_id}] fetching and checking the model {cell.model}"):
            entry, template = _base(study, cell)
        long_rows = study.data[cell.settings.data].long_rows
        path = folder / "train.parquet"
        train = tokenise(rows, template, cell.settings, long_rows=long_rows, path=path, purpose="train on")
        write_groups(folder / GROUPS, rows.numbers, heldout.groups_of(rows))
        # All runs of the study are measured on the same tokens, whatever they are trained on.
        long_rows = study.data[study.heldout.set].long_rows
        path = folder / "heldout.parquet"
        held = tokenise(heldout.rows, template, study.base_case, long_rows=long_rows, path=path, purpose="hold out")
        _check_token_ids(max(train.written.largest_id, held.written.largest_id), entry, cell.model)
        card = {
            "schema": CARD_SCHEMA,
            "data_id": data_id,
            "model": cell.model,
            "model_commit": entry.revision,
            **set_facts(rows, train),
            **split_facts(rows, heldout, train, held),
            **token_facts(train, held),
            SEALED: True,
        }
        card["warnings"] += row_warnings(card)
        check_batches(study, data_id, train.written.rows)
        write_seal(folder, digests_of(folder, folder.iterdir()), record="card.json", text=json_text(card))
        write_json(folder / "card.json", card)
    return card


def _base(study: Study, cell: Cell) -> tuple[ModelEntry, ChatTemplate]:
    """The cell's base with its commit as the revision, and its chat template. Raises `UserError` if it is unusable."""
    # The only place that resolves a branch; later stages read the commit from the data card.
    folder, commit = resolve_folder(study.models[cell.model])
    check_model_folder(folder)
    check_values(folder, tied=check_tensors(folder))
    entry = replace(study.models[cell.model], revision=commit)
    template = checked_template(load_tokenizer(entry), model=cell.model)
    for settings in (cell.settings, study.base_case):
        check_length(settings.max_length_tokens, context_tokens(entry), cell.model)
    return entry, template


def _check_packages(study: Study, data_id: str) -> None:
    """Refuse settings of the runs on this data set that need a package which is not installed."""
    # This is a study's first job: better now than when training starts.
    needs = {
        (cell.settings.backend, cell.settings.optimizer, cell.settings.precision)
        for cell in study.cells
        if cell.data == data_id
    }
    for backend, optimizer, precision in sorted(needs):
        check_packages(
            file=study.path.name,
            backend=backend,
            optimizer=optimizer,
            report_to=study.training.report_to,
            precision=precision,
        )


def _check_token_ids(largest: int, entry: ModelEntry, model: str) -> None:
    """Refuse a tokenizer of another model: the base has no embeddings for some of its tokens."""
    size = vocabulary_size(entry)
    if size is not None and largest >= size:
        raise UserError(
            f"model {model}: its tokenizer gives token id {largest}, but its vocabulary has {size} tokens. "
            "Fix: give the tokenizer that belongs to the model."
        )


def _cell_of(study: Study, data_id: str) -> Cell:
    """A run that is trained on the data set; its settings say how the rows are made."""
    if data_id not in study.data_sets:
        raise UserError(
            f"{study.path.name}: the study has no data set {data_id}; the file has changed since "
            f"the id was made. Fix: run snakemake again, or use one of {', '.join(study.data_sets)}."
        )
    return study.data_sets[data_id]


def _check_replaceable(out: Path) -> None:
    """Refuse a folder that holds other files: the finished data set replaces it as a whole."""
    if not out.is_dir():
        return
    for path in sorted(out.iterdir()):
        # Hidden files are ignored: file managers and network drives leave them anywhere.
        if not OUTPUTS.fullmatch(path.name) and not path.name.startswith("."):
            raise UserError(
                f"{out}: the folder holds {path.name}, which is no file of a prepared data set. "
                "Fix: give another folder with --out."
            )


def main() -> None:
    """Map the command line to `prepare_data`."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[log_option()],
    )
    parser.add_argument("--study", required=True, help="study file, or a name in config/studies")
    parser.add_argument("--data", required=True, help="id of the data set, as in the study")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    parser.add_argument("--processes", type=int, default=1, help="processes, without effect on the result (default: 1)")
    add_backup_option(parser)
    options = parser.parse_args()
    quiet_libraries()
    study = load_study(options.study).with_backup(options.backup)
    with row_processes(max(1, options.processes)):
        card = prepare_data(study=study, data_id=options.data, out=options.out)
    copy_result(study, "data", options.data, options.out)
    dropped = card["rows_read"] - card["rows_kept"]
    split = card["split"]
    # The display shows a finished job by the last line of its log, so warnings come first.
    for warning in card["warnings"]:
        print_line(f"data {card['data_id']}: {warning}")
    print_result(
        f"data {card['data_id']}: {split['train_rows']} training and {split['heldout_rows']} "
        f"held-out rows, {dropped} of {card['rows_read']} left out, "
        f"{card['tokens']['train']} training tokens"
    )


if __name__ == "__main__":
    run_main(main)
