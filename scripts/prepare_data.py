"""Prepare the data of a study for one model: read, check, deduplicate, split, render with its chat template, tokenise.

    prepare_data.py --study FILE --data DATA_ID --out FOLDER

Leaves in the output folder: train.parquet, heldout.parquet (columns row, input_ids, labels; -100 where no loss is wanted)
and, last, card.json; beside them source.jsonl where the rows were generated. The source is read twice, as a stream: once
to judge and split the rows on their text, once to tokenise them.
"""

import argparse
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from loragrid.data.conversation_formats import BadRow, Conversation, find_form, to_conversation
from loragrid.data.data_card import (
    CARD_SCHEMA,
    NOTHING_LEFT,
    REFUSED,
    Survey,
    Tokenised,
    source_facts,
    split_facts,
    token_facts,
)
from loragrid.data.heldout_split import RowKeys, Split, drop_duplicates, keys_of, sample, split_rows
from loragrid.data.sources import Source, open_source
from loragrid.data.token_rows import TokenRows
from loragrid.data.tokenizing import Encoded, Rendered, encode, loss_tokens, render
from loragrid.errors import UserError, print_line, run_main
from loragrid.models.chat_template import ChatTemplate, inspect_template
from loragrid.models.loading import context_tokens, load_tokenizer
from loragrid.models.model_files import resolve_folder
from loragrid.runtime.atomic_files import atomic_folder, write_json
from loragrid.runtime.fork_server import delegate_to_fork_server
from loragrid.runtime.optional_packages import check_packages
from loragrid.study.sections import DataSettings, ModelEntry
from loragrid.study.study_file import Study, load_study

FORM_ROWS = 100  # first rows looked at to find the form
# What this stage writes; a folder that holds anything else is never replaced.
OUTPUTS = {"card.json", "train.parquet", "heldout.parquet", "source.jsonl"}
BATCH_ROWS = 256  # rows rendered and tokenised at a time


def prepare_data(*, study: Study, data_id: str, out: Path) -> dict[str, Any]:
    """Make the data set `data_id` of a study in the folder `out` and return its card.

    Errors: an unknown data id; what training needs and is not installed; a source that cannot be read, is in no known
    form or holds nothing to train on; a held-out set that cannot be had; a model without a usable chat template or with
    too short a context. Then `out` is left as it was.
    """
    settings, model = study.data, _model_of(study, data_id)
    entry = study.models[model]
    # Here and not only in train: this is a study's first job.
    check_packages(
        backend=study.training.backend,
        optimizer=study.training.optimizer,
        report_to=study.training.report_to,
        precision=entry.precision,
    )
    _check_replaceable(out)
    with atomic_folder(out) as folder:
        source = open_source(settings.source, folder=folder)
        survey = survey_rows(source)
        distinct, duplicates = drop_duplicates(survey.keys)
        keys = sample(distinct, max_rows=settings.max_rows, seed=settings.split_seed)
        split = split_rows(keys, heldout_rows=settings.heldout_rows, seed=settings.split_seed)
        _, commit = resolve_folder(entry)  # a branch is looked up here and nowhere later (models.prepared_entry)
        entry = replace(entry, revision=commit)
        template = inspect_template(load_tokenizer(entry), model=model)
        _check_length(settings.max_length_tokens, entry, model)
        done = tokenise(
            source, survey=survey, keys=keys, split=split, template=template, settings=settings, out=folder
        )
        card = {
            "schema": CARD_SCHEMA,
            "data_id": data_id,
            "model": model,
            "model_commit": commit,
            **source_facts(source, survey, duplicates, sampled_out=len(distinct) - len(keys)),
            **split_facts(keys, split, done),
            **token_facts(settings, done),
        }
        write_json(folder / "card.json", card)
    return card


def survey_rows(source: Source) -> Survey:
    """First reading: find the form, judge every row, and keep of each usable one what the split needs."""
    rows = source.rows()
    first = list(itertools.islice(rows, FORM_ROWS))
    if not first:
        raise UserError(f"data {source.name} holds no row: give conversations")
    survey = Survey(form=find_form([row for _, row in first], name=source.name))
    for number, row in itertools.chain(first, rows):
        survey.rows_read += 1
        try:
            conversation = to_conversation(row, survey.form)
        except BadRow as bad:
            survey.dropped.add(str(bad), number)
            continue
        if conversation.cut:
            survey.cut.add(number)
        survey.keys.append(keys_of(number, conversation))
    if not survey.keys:
        raise UserError(
            f"data {source.name}: none of its {survey.rows_read} rows can be trained on ({survey.dropped}): mend them"
        )
    return survey


def tokenise(
    source: Source,
    *,
    survey: Survey,
    keys: list[RowKeys],
    split: Split,
    template: ChatTemplate,
    settings: DataSettings,
    out: Path,
) -> Tokenised:
    """Second reading: write the split's rows to train.parquet and heldout.parquet in the order of the source.

    Rows that the template refuses, and rows without a loss token after truncation, are dropped from their side.
    """
    heldout = {keys[i].row for i in split.heldout}
    wanted = heldout | {keys[i].row for i in split.train}
    rows = ((number, to_conversation(row, survey.form)) for number, row in source.rows() if number in wanted)
    with TokenRows(out / "train.parquet") as train, TokenRows(out / "heldout.parquet") as held:
        done = Tokenised(template=template, train=train, heldout=held)
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            for number, conversation, text, row in _encoded(batch, template, settings):
                if row is None:
                    survey.dropped.add(REFUSED, number)
                elif loss_tokens(row.labels) == 0:
                    survey.dropped.add(NOTHING_LEFT, number)
                else:
                    (held if number in heldout else train).add(number, row)
                    done.note(number, conversation, text, row)
    for side, count in (("train on", train.rows), ("hold out", held.rows)):
        if count == 0:
            raise UserError(
                f"data {source.name}: no row is left to {side} for model {template.model} ({survey.dropped}): "
                "give other rows, or raise data.max_length_tokens"
            )
    return done


def _encoded(
    batch: list[tuple[int, Conversation]], template: ChatTemplate, settings: DataSettings
) -> Iterator[tuple[int, Conversation, Rendered | None, Encoded | None]]:
    """Rows with their text and tokens; None for both where the template refuses a row."""
    texts = render(template, [conversation for _, conversation in batch])
    coded = encode(
        template,
        [text for text in texts if text is not None],
        max_length_tokens=settings.max_length_tokens,
        loss_on=settings.loss_on,
    )
    rest = iter(coded)
    for (number, conversation), text in zip(batch, texts, strict=True):
        yield number, conversation, text, None if text is None else next(rest)


def _check_length(max_length_tokens: int, entry: ModelEntry, model: str) -> None:
    """Refuse rows that the model has no positions for: what they would be read at, nobody trained."""
    context = context_tokens(entry)
    if context is not None and max_length_tokens > context:
        raise UserError(
            f"data.max_length_tokens: {max_length_tokens} is longer than the context of model {model}, {context} tokens: "
            "set it to that at most"
        )


def _model_of(study: Study, data_id: str) -> str:
    known = study.data_sets
    if data_id not in known:
        raise UserError(
            f"{study.path.name} holds no data set {data_id}: the study file was changed since it was named; "
            f"run snakemake again, or take one of {', '.join(known)}"
        )
    return known[data_id]


def _check_replaceable(out: Path) -> None:
    """Refuse a folder that holds other files: the finished data set replaces it as a whole."""
    if not out.is_dir():
        return
    for path in sorted(out.iterdir()):
        # Hidden files are ignored: file managers and network drives leave them anywhere.
        if path.name not in OUTPUTS and not path.name.startswith("."):
            raise UserError(
                f"{out}: holds {path.name}, which is no file of a prepared data set. "
                "Fix: give another folder with --out."
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", required=True, help="study file, or the name of one in config/studies")
    parser.add_argument("--data", required=True, help="id of the data set, as the workflow names it")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    arguments = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a job takes the one core that its rule declares
    card = prepare_data(study=load_study(arguments.study), data_id=arguments.data, out=arguments.out)
    left_out = card["rows_read"] - card["rows_kept"]
    split = card["split"]
    print_line(
        f"data {card['data_id']}: {split['train_rows']} training and {split['heldout_rows']} held-out rows, "
        f"{left_out} of {card['rows_read']} left out, {card['tokens']['train']} training tokens"
    )


if __name__ == "__main__":
    delegate_to_fork_server()
    run_main(main)
