"""The rows of a search: a part of the training rows is set aside, and trials are measured on it.

The study's held-out rows stay unseen until the end. So a search chooses on rows that no result of a
final run uses; the final runs train on all training rows.
"""

from pathlib import Path

from loragrid.data.heldout_split import ENOUGH_HELDOUT, choose_groups
from loragrid.data.row_keys import random_rank
from loragrid.data.training_data import GROUPS, TrainingData, load_training_data, read_groups
from loragrid.errors import UserError
from loragrid.study.study_file import Study

# ASSUME: without `tune.validation_rows` as many rows as are held out, but at most a tenth of the
# training rows are set aside, so that trials train on nearly what the final runs train on.
LARGEST_SHARE = 0.1


def search_rows(study: Study, folder: Path) -> TrainingData:
    """The prepared data of `folder` as a search uses them: `heldout` holds the validation rows.

    Rows that share answers or prompts are set aside together, as for the held-out rows. Raises
    `UserError` if not enough rows can be set aside.
    """
    data = load_training_data(folder)
    rows, groups = list(data.train["row"]), read_groups(folder)
    unknown = next((row for row in rows if row not in groups), None)
    if unknown is not None:
        raise UserError(f"{folder / GROUPS}: no group of training row {unknown}. Fix: run prepare_data again.")
    wanted = _wanted(study, len(rows))
    ranks = [random_rank(str(row).encode(), study.heldout.seed, b"validation") for row in rows]
    chosen = choose_groups([groups[row] for row in rows], ranks, rows=wanted)
    if len(chosen) < ENOUGH_HELDOUT * wanted:
        found = len({groups[row] for row in rows})
        raise UserError(
            f"tune.validation_rows: {wanted} of the {len(rows)} training rows cannot be set aside without "
            f"sharing an answer or prompt with the others: they fall into {found} groups that share them. "
            "Fix: lower it, or give more varied data."
        )
    places = range(len(rows))
    return TrainingData(
        train=data.train.select([place for place in places if place not in chosen]),
        heldout=data.train.select([place for place in places if place in chosen]),
        card=data.card,
    )


def _wanted(study: Study, training_rows: int) -> int:
    """The number of rows to set aside; raises `UserError` if it is more than half of them."""
    wanted = study.tune.validation_rows
    if training_rows < 2:
        raise UserError("tune: one training row, and a search needs a second to measure on. Fix: give more rows.")
    if wanted is None:
        return min(study.heldout.rows, max(1, int(LARGEST_SHARE * training_rows)))
    if wanted > training_rows // 2:
        raise UserError(
            f"tune.validation_rows: more than half of the {training_rows} training rows ({wanted}). "
            f"Fix: lower it to {training_rows // 2} or less."
        )
    return wanted
