"""Checkpoints that are complete or absent, and that are never resumed by another run.

A checkpoint is a folder `checkpoint-<step>`, written under a temporary name, fsynced and renamed.
Its manifest (checkpoint_files.py) holds the digest of every file and the fingerprint of the run.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from loragrid.errors import UserError, full_disk_failure
from loragrid.records.failures import disk_full
from loragrid.runtime.atomic_files import atomic_folder
from loragrid.training.checkpoint_files import (
    STATE,
    BrokenCheckpoint,
    Checkpoint,
    verify,
    write_manifest,
)

UNFINISHED = ".saving-"
BROKEN = "broken-"


class Backup(Protocol):
    """What copies the checkpoints of a run to another place.

    `in_use`: the checkpoints that must stay until they are copied; `shown`: where the copies are, empty without any.
    """

    in_use: tuple[Path, ...]
    shown: str

    def copy_checkpoint(self, checkpoint: Path) -> None:
        """Copy a checkpoint that was just saved, without waiting for it."""


class CheckpointStore:
    """The checkpoints of one run; the caller holds the run's lock."""

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: dict[str, Any],
        keep: int,
        before_save: Callable[[], None] = lambda: None,
        backup: Backup | None = None,
    ) -> None:
        """`before_save` may raise to forbid a save, as it must once the run's lock is lost."""
        self.folder = folder
        self.fingerprint = fingerprint
        self.keep = keep
        self.before_save = before_save
        self.backup = backup

    def save(self, *, step: int, state: dict[str, Any], write: Callable[[Path], None]) -> Path:
        """Save a checkpoint, remove all but the newest `keep`, and return the new one's folder.

        `write` puts the trainer's files into the folder that it receives. On any error the
        unfinished checkpoint is removed and older ones stay; a full disk is a `Failed`.
        """
        final = self.folder / f"checkpoint-{step}"
        unfinished = self.folder / f"{UNFINISHED}{step}"
        self.before_save()

        def explain(error: BaseException) -> None:
            # Asked while the unfinished files still exist: without them the disk has room again.
            self._explain_full_disk(error, step)

        with atomic_folder(final, temporary=unfinished, on_error=explain) as folder:
            write(folder)
            (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
            # Last, since it holds the digest of every other file.
            write_manifest(folder, step=step, fingerprint=self.fingerprint)
        if self.backup is not None:
            self.backup.copy_checkpoint(final)
        self._prune(newest=final)
        return final

    def keep_weights(self, *, step: int, save: Callable[[], Any]) -> None:
        """Keep the weights of this step for scoring: `save` writes them atomically.

        A full disk is a `Failed`; the next session makes the step again and keeps its weights then.
        """
        self.before_save()
        try:
            save()
        except BaseException as error:
            self._explain_full_disk(error, step)
            raise

    def _explain_full_disk(self, error: BaseException, step: int) -> None:
        if disk_full(error, self.folder):
            lost = f", so step {step} was not saved; older checkpoints are intact"
            raise full_disk_failure(error, self.folder, lost=lost) from error

    def newest_good(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that verifies, or None; broken ones are set aside with a warning.

        Raises `UserError` with the first differing field if it belongs to another run (another
        learning rate, data set or library version). Resuming it would be silently wrong, and only
        the user can decide to delete it.
        """
        if not self.folder.is_dir():
            return None
        # What a killed save or removal left. Nobody else writes here: the caller holds the lock.
        for leftover in self.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for path in self._folders():
            try:
                found = verify(path)
            except BrokenCheckpoint as reason:
                # Renamed and not deleted: it may show what damaged it, a drive or another program.
                aside = set_aside(path)
                warn(f"checkpoint {path.name} is broken ({reason}): moved to {aside.name}")
                continue
            self._refuse_other_run(found)
            return found
        return None

    def remove_all(self) -> None:
        """Remove the folder; a finished run needs no checkpoint."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        """Folders named like checkpoints, the highest step first."""
        steps = {}
        for path in self.folder.iterdir():
            if match := re.fullmatch(r"checkpoint-(\d+)", path.name):
                steps[path] = int(match[1])
        return sorted(steps, key=steps.__getitem__, reverse=True)

    def _prune(self, *, newest: Path) -> None:
        """Remove all but the `keep` newest checkpoints up to `newest`, which was just written."""
        # Folders of higher steps do not count: only a verified checkpoint may push out another one.
        written = self._folders()
        older = written[written.index(newest) + 1 :]
        in_use = () if self.backup is None else self.backup.in_use
        for path in older[max(self.keep, 1) - 1 :]:
            # The next save removes it.
            if path in in_use:
                continue
            # Renamed first: a kill halfway through a deletion must not leave half a checkpoint
            # under a valid name.
            doomed = path.with_name(f"{UNFINISHED}deleted-{path.name}")
            os.rename(path, doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _refuse_other_run(self, found: Checkpoint) -> None:
        fields = self.fingerprint.keys() | found.fingerprint.keys()
        # The run's id follows from its settings, which say more to the user: it comes last.
        for field in sorted(fields, key=lambda name: (name == "run", name)):
            now, then = self.fingerprint.get(field), found.fingerprint.get(field)
            if now != then:
                copies = self.backup.shown if self.backup is not None else ""
                doomed = f"{self.folder} and its copies ({copies})" if copies else self.folder
                raise UserError(
                    f"{found.path}: its {field} was {_shown(then)} and is now {_shown(now)}. "
                    f"Fix: set it back to resume, or delete {doomed} to train from the start."
                )


def set_aside(path: Path) -> Path:
    """Rename a broken checkpoint so that it is never tried again; returns its new path."""
    aside = path.with_name(f"{BROKEN}{path.name}")
    number = 0
    while aside.exists():
        number += 1
        aside = path.with_name(f"{BROKEN}{path.name}-{number}")
    os.rename(path, aside)
    return aside


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    if len(text) <= 80:
        return text
    return text[:77] + "..."
