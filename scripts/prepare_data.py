"""Prepare the data set of a study for one model: read, check, deduplicate, split, render, tokenise.

    prepare_data.py --study FILE --data DATA_ID --out FOLDER

Writes the output folder as a whole: train.parquet and heldout.parquet (columns row, input_ids and
labels; -100 where a token carries no loss), card.json, and source.jsonl if the rows were generated.
The source is read twice as a stream: once to check and split the rows by their text, once to
tokenise them.
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loragrid.data.conversation_formats import Conversation, UnusableRow, detect_format, to_conversation
from loragrid.data.data_card import (
    CARD_SCHEMA,
    NOTHING_LEFT,
    REFUSED,
    SourceScan,
    TokenisedSplit,
    source_facts,
    split_facts,
    token_facts,
)
from loragrid.data.heldout_split import row_sides, split_rows
from loragrid.data.row_keys import drop_duplicates, row_keys, sample_rows
from loragrid.data.sources import Source, open_source
from loragrid.data.token_rows import TokenRowWriter
from loragrid.data.tokenizing import (
    EncodedChat,
    RenderedChat,
    count_loss_tokens,
    encode_chats,
    render_conversations,
)
from loragrid.errors import UserError, log_option, print_line, run_main
from loragrid.models.chat_template import ChatTemplate, inspect_template
from loragrid.models.loading import context_tokens, load_tokenizer
from loragrid.models.model_files import resolve_folder
from loragrid.runtime.atomic_files import atomic_folder, write_json
from loragrid.runtime.fork_client import delegate_to_fork_server
from loragrid.runtime.optional_packages import check_packages
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.study.sections import DataSettings, ModelEntry
from loragrid.study.study_file import Study, load_study

FORMAT_ROWS = 100  # rows from which the format is detected
BATCH_ROWS = 256  # rows rendered and tokenised at a time
# The files that this stage writes; a folder that holds anything else is never replaced.
OUTPUTS = {"card.json", "train.parquet", "heldout.parquet", "source.jsonl"}


def prepare_data(*, study: Study, data_id: str, out: Path) -> dict[str, Any]:
    """Write the data set `data_id` of a study to the folder `out` and return its data card.

    Raises `UserError` for an unknown data id, a package that training will need and is not
    installed, an unusable source or chat template, a held-out set that cannot be formed, and rows
    longer than the model's context. `out` then stays as it was.
    """
    settings, model = study.data, _model_of(study, data_id)
    entry = study.models[model]
    # This is a study's first job: better now than when training starts.
    check_packages(
        backend=study.training.backend,
        optimizer=study.training.optimizer,
        report_to=study.training.report_to,
        precision=entry.precision,
    )
    _check_replaceable(out)
    with atomic_folder(out) as folder:
        scan = scan_source(open_source(settings.source, folder=folder))
        distinct, duplicates = drop_duplicates(scan.keys)
        keys = sample_rows(distinct, max_rows=settings.max_rows, seed=settings.split_seed)
        split = split_rows(keys, heldout_rows=settings.heldout_rows, seed=settings.split_seed)
        # The only place that resolves a branch; later stages read the commit from the data card.
        _, commit = resolve_folder(entry)
        entry = replace(entry, revision=commit)
        template = inspect_template(load_tokenizer(entry), model=model)
        _check_length(settings.max_length_tokens, entry, model)
        tokenised = tokenise(scan, row_sides(keys, split), template, settings, folder=folder)
        card = {
            "schema": CARD_SCHEMA,
            "data_id": data_id,
            "model": model,
            "model_commit": commit,
            **source_facts(scan, duplicates, sampled_out=len(distinct) - len(keys)),
            **split_facts(keys, split, tokenised),
            **token_facts(settings, tokenised),
        }
        write_json(folder / "card.json", card)
    return card


def scan_source(source: Source) -> SourceScan:
    """First pass: detect the format, check every row, and keep the keys of usable rows.

    Only keys are kept, not conversations, so that memory stays small for large sources.
    """
    rows = source.rows()
    first = list(itertools.islice(rows, FORMAT_ROWS))
    if not first:
        raise UserError(f"data {source.name}: the source holds no row. Fix: give conversations.")
    row_format = detect_format([row for _, row in first], source_name=source.name)
    scan = SourceScan(source, row_format)
    for number, row in itertools.chain(first, rows):
        scan.rows_read += 1
        try:
            conversation = to_conversation(row, row_format)
        except UnusableRow as reason:
            scan.dropped.add(str(reason), number)
            continue
        if conversation.cut_after_last_reply:
            scan.cut.add(number)
        scan.keys.append(row_keys(number, conversation))
    if not scan.keys:
        raise UserError(
            f"data {source.name}: none of its {scan.rows_read} rows can be trained on "
            f"({scan.dropped}). Fix: give rows without these faults."
        )
    return scan


def tokenise(
    scan: SourceScan,
    sides: Mapping[int, str],
    template: ChatTemplate,
    settings: DataSettings,
    *,
    folder: Path,
) -> TokenisedSplit:
    """Second pass: write the rows of both sides to `folder` as Parquet, in the order of the source.

    Rows that the template refuses and rows without a loss token after truncation are dropped from
    their side and counted in `scan.dropped`.
    """
    rows = _conversations(scan, sides)
    with (
        TokenRowWriter(folder / "train.parquet") as train,
        TokenRowWriter(folder / "heldout.parquet") as heldout,
    ):
        writers = {"train": train, "heldout": heldout}
        tokenised = TokenisedSplit(template=template, train=train, heldout=heldout)
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            for number, conversation, chat, encoded in _encode_batch(batch, template, settings):
                if chat is None:
                    scan.dropped.add(REFUSED, number)
                elif count_loss_tokens(encoded.labels) == 0:
                    scan.dropped.add(NOTHING_LEFT, number)
                else:
                    writers[sides[number]].add(number, encoded)
                    tokenised.count_row(number, conversation, chat, encoded)
    for purpose, writer in (("train on", train), ("hold out", heldout)):
        if writer.rows == 0:
            raise UserError(
                f"data {scan.source.name}: no row is left to {purpose} for model {template.model} "
                f"({scan.dropped}). Fix: raise data.max_length_tokens, or give other rows."
            )
    return tokenised


def _conversations(scan: SourceScan, sides: Mapping[int, str]) -> Iterator[tuple[int, Conversation]]:
    for number, row in scan.source.rows():
        if number in sides:
            yield number, to_conversation(row, scan.row_format)


def _encode_batch(
    batch: list[tuple[int, Conversation]], template: ChatTemplate, settings: DataSettings
) -> Iterator[tuple[int, Conversation, RenderedChat | None, EncodedChat | None]]:
    """Rows with their text and tokens, both None if the template refuses a row."""
    chats = render_conversations(template, [conversation for _, conversation in batch])
    encoded = encode_chats(
        template,
        [chat for chat in chats if chat is not None],
        max_length_tokens=settings.max_length_tokens,
        loss_on=settings.loss_on,
    )
    remaining = iter(encoded)
    for (number, conversation), chat in zip(batch, chats, strict=True):
        if chat is None:
            yield number, conversation, None, None
        else:
            yield number, conversation, chat, next(remaining)


def _check_length(max_length_tokens: int, entry: ModelEntry, model: str) -> None:
    """Refuse rows longer than the model's context, whose end the base has no positions for."""
    context = context_tokens(entry)
    if context is not None and max_length_tokens > context:
        raise UserError(
            f"data.max_length_tokens: {max_length_tokens} is longer than the context of model "
            f"{model}, {context} tokens. Fix: set it to {context} or less."
        )


def _model_of(study: Study, data_id: str) -> str:
    models = study.data_sets
    if data_id not in models:
        raise UserError(
            f"{study.path.name}: the study has no data set {data_id}; the file has changed since "
            f"the id was made. Fix: run snakemake again, or use one of {', '.join(models)}."
        )
    return models[data_id]


def _check_replaceable(out: Path) -> None:
    """Refuse a folder that holds other files: the finished data set replaces it as a whole."""
    if not out.is_dir():
        return
    for path in sorted(out.iterdir()):
        # Hidden files are ignored: file managers and network drives leave them anywhere.
        if path.name not in OUTPUTS and not path.name.startswith("."):
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
    options = parser.parse_args()
    quiet_libraries()
    card = prepare_data(study=load_study(options.study), data_id=options.data, out=options.out)
    dropped = card["rows_read"] - card["rows_kept"]
    split = card["split"]
    print_line(
        f"data {card['data_id']}: {split['train_rows']} training and {split['heldout_rows']} "
        f"held-out rows, {dropped} of {card['rows_read']} left out, "
        f"{card['tokens']['train']} training tokens"
    )


if __name__ == "__main__":
    delegate_to_fork_server()
    run_main(main)
