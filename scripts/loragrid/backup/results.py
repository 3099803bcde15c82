"""Copies of finished results: a data set, a trained run, a score."""

import argparse
from fnmatch import fnmatch
from pathlib import Path

from loragrid.backup.copies import BrokenCopy, CopyStore
from loragrid.backup.places import Place, PlaceError, open_place
from loragrid.errors import UserError, first_line, print_line
from loragrid.runtime.atomic_files import sha256_json
from loragrid.runtime.code_digest import code_digest
from loragrid.study.study_file import Study
from loragrid.study.tasks import scoring_digest

# Folder of a stage in results/{study}/ → the file that is written last, and the stage's script.
FINAL = {"data": "card.json", "train": "record.json", "score": "score.json"}
SCRIPT = {"data": "prepare_data", "train": "train", "score": "score"}
# How the name of the copy of a finished result begins.
FINISHED = "finished-"
# What belongs to this machine, or to a result that is not finished.
NOT_COPIED = ("trainer.lock", "failure.json", "checkpoints", "tasks", ".*", "*.partial")


def add_backup_option(parser: argparse.ArgumentParser) -> None:
    """Add `--backup`, which overrides the key of that name in the study file; an empty value keeps it."""
    parser.add_argument("--backup", metavar="PLACE", help="place for copies: hub:owner/name, folder:PATH or s3://…")


def place_of(study: Study) -> Place | None:
    """The place for copies of a study's results, or None; nothing is read or written there.

    Raises `PlaceError` if it is there no more; `snakemake` has looked when it started.
    """
    try:
        return None if study.backup is None else open_place(study.backup)
    except UserError as error:
        raise PlaceError(str(error)) from None


def copies_of(place: Place, study: Study, stage: str, name: str) -> CopyStore:
    """The copies of one result: `stage` is a key of `FINAL`, `name` the id of a data set, run or subject."""
    return CopyStore(place, f"{study.name}/{stage}/{name}")


def finished_name(study: Study, stage: str) -> str:
    """Name of the copy of a finished result: it holds what the result depends on beside its id.

    As for Snakemake, that is the code of the stage and, for a score, the tasks.
    """
    key = [code_digest(SCRIPT[stage])]
    if stage == "score":
        key.append(scoring_digest(study))
    return f"{FINISHED}{sha256_json(key)[:12]}"


def is_finished(folder: Path, stage: str) -> bool:
    """Whether a result is complete in a folder of this machine."""
    return (folder / FINAL[stage]).is_file()


def copy_result(study: Study, stage: str, name: str, folder: Path, *, store: CopyStore | None = None) -> bool:
    """Copy a finished result to the study's place, if it has one; returns whether it is there.

    A failure is one warning line.

    `store`: the copies of this result, if this process has written some. Older copies of it are removed, a run's
    checkpoints too.
    """
    try:
        if store is None:
            place = place_of(study)
            if place is None:
                return False
            store = copies_of(place, study, stage, name)
        copy = finished_name(study, stage)
        store.write(copy, result_files(folder, stage))
        store.keep_only([copy])
    except (PlaceError, OSError) as error:
        reason = first_line(error)
        print_line(f"[{name}] backup: not copied to {study.backup} ({reason}); the next call of snakemake tries again")
        return False
    return True


def take_result(study: Study, store: CopyStore, stage: str, folder: Path) -> None:
    """Put the copy of a finished result into a folder of this machine.

    Raises `BrokenCopy` if it is not whole, and `PlaceError` if the place cannot be read.
    """
    copy = store.read(finished_name(study, stage))
    if copy is None or FINAL[stage] not in copy.files:
        raise BrokenCopy("its manifest is not whole")
    store.restore(copy, folder, last=FINAL[stage])


def result_files(folder: Path, stage: str) -> dict[str, Path]:
    """The files of a finished result by their paths in its folder, the last one last."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        skipped = any(fnmatch(part, pattern) for part in inner.parts for pattern in NOT_COPIED)
        if path.is_file() and not path.is_symlink() and not skipped:
            found[inner.as_posix()] = path
    final = FINAL[stage]
    return {name: path for name, path in found.items() if name != final} | {final: found[final]}
