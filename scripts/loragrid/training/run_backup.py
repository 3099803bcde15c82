"""The backup of a run while it trains: its newest checkpoints at another place, and the way back."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from loragrid.backup.copier import Copier, CopyJob
from loragrid.backup.copies import CHECKPOINTS, BrokenCopy, CopyStore
from loragrid.backup.places import PlaceError
from loragrid.backup.results import FINAL, copies_of, copy_result, finished_name, place_of
from loragrid.errors import first_line, print_line
from loragrid.models.adapter_files import ALONG
from loragrid.runtime.session import SessionClock
from loragrid.study.study_file import Study
from loragrid.training.run_record import FINISHED_COPY

# What a resumed run needs beside its checkpoint: its sessions, the losses so far, and the weights kept along the way.
LOGS = ("history.jsonl", "losses.csv")
# A stopped session waits so long for its last copy. A batch system kills it earlier, and the copy is then not whole.
LAST_COPY_SECONDS = 600.0
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class RunBackup:
    """Context manager that copies the checkpoints of one run, and waits for the last copy at its end.

    A study without a place for copies has one that does nothing. The caller holds the run's lock.
    """

    def __init__(self, study: Study, *, run: str, out: Path, clock: SessionClock) -> None:
        """`clock` learns how long a copy takes, so that the session leaves time for the last one."""
        self.study, self.run, self.out, self.clock = study, run, out, clock
        self.keep = study.training.keep_checkpoints
        self._store: CopyStore | None = None
        self._copier = Copier()
        self._broken: set[int] = set()
        self._wait_seconds = LAST_COPY_SECONDS

    def __enter__(self) -> "RunBackup":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._last_copy_ended():
            self._warn("the last checkpoint", f"not finished after {LAST_COPY_SECONDS:.0f} s")

    @property
    def in_use(self) -> tuple[Path, ...]:
        """Checkpoints that must stay until they are copied."""
        return self._copier.in_use

    @property
    def shown(self) -> str:
        """The place of the run's copies, for a message; empty without one."""
        return "" if self.study.backup is None else f"{self.study.backup}, folder {self.study.name}/train/{self.run}"

    def copy_checkpoint(self, checkpoint: Path) -> None:
        """Copy a checkpoint that was just saved, in the background."""
        if self.study.backup is None:
            return
        try:
            files = self._files(checkpoint)
        except OSError as error:
            self._warn(checkpoint.name, first_line(error))
            return
        self._copier.submit(
            CopyJob(
                folder=checkpoint,
                copy=lambda: self._copy(checkpoint, files),
                done=lambda seconds: self.clock.record_duration(copy=seconds),
                failed=lambda error: self._warn(checkpoint.name, first_line(error)),
            )
        )

    def copy_finished(self) -> None:
        """Copy the finished run, which takes the place of its checkpoints."""
        # A checkpoint's copy that still runs would remove this one at its end: the next snakemake copies the run.
        if self.study.backup is not None and self._last_copy_ended():
            copy_result(self.study, "train", self.run, self.out, store=self._store)

    def restore(self) -> None:
        """Put the finished run, or a checkpoint newer than those here, into the run's folder.

        A copy is verified before it is put there; whether it is of this run and this code is seen when it is resumed.
        """
        if self.study.backup is None:
            return
        try:
            self._restore(self._opened())
        except PlaceError as reason:
            line = "backup: {} cannot be read ({}); what is here is resumed"
            print_line(f"[{self.run}] {line.format(self.study.backup, reason)}")

    def _opened(self) -> CopyStore:
        """The run's copies; `PlaceError` while the place is not there, such as a drive that is not mounted."""
        if self._store is None:
            self._store = copies_of(place_of(self.study), self.study, "train", self.run)
        return self._store

    def _restore(self, store: CopyStore) -> None:
        names = store.names()
        if self._take_finished(store, names):
            print_line(f"[{self.run}] taken from the backup: the finished run")
            return
        here = max(self._steps(path.name for path in self.out.glob(f"{CHECKPOINTS}/*")), default=0)
        for step in sorted(self._steps(names), reverse=True):
            if step <= here:
                return
            name = f"checkpoint-{step}"
            copy = store.read(name)
            try:
                if copy is None:
                    raise BrokenCopy("its manifest is not whole")
                store.restore(copy, self.out, last=f"{CHECKPOINTS}/{name}")
            except BrokenCopy as reason:
                self._broken.add(step)
                print_line(f"[{self.run}] backup: the copy of {name} is broken ({reason}): an older one is looked for")
                continue
            print_line(f"[{self.run}] taken from the backup: {name}")
            return

    def _take_finished(self, store: CopyStore, names: Collection[str]) -> bool:
        """Put the finished run into the run's folder, without its record.

        The record is written if its copy in finished.json proves to be of this code and these data.
        """
        name = finished_name(self.study, "train")
        if name not in names or (self.out / FINISHED_COPY).exists():
            return False
        copy = store.read(name)
        if copy is None or FINISHED_COPY not in copy.files:
            return False
        files = {path: file for path, file in copy.files.items() if path != FINAL["train"]}
        try:
            store.restore(replace(copy, files=files), self.out, last=FINISHED_COPY)
        except BrokenCopy as reason:
            print_line(f"[{self.run}] backup: the copy of the finished run is broken ({reason})")
            return False
        return True

    def _files(self, checkpoint: Path) -> dict[str, Path | bytes]:
        """The files to copy; of those that grow, the content of this moment."""
        files: dict[str, Path | bytes] = {}
        for name in LOGS:
            files[name] = (self.out / name).read_bytes()
        for folder in (self.out / ALONG, checkpoint):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and ".partial" not in str(path.relative_to(self.out)):
                    files[path.relative_to(self.out).as_posix()] = path
        return files

    def _copy(self, checkpoint: Path, files: Mapping[str, Path | bytes]) -> None:
        store = self._opened()
        store.write(checkpoint.name, files)
        (written,) = self._steps([checkpoint.name])
        steps = self._steps(store.names())
        # A later one that is whole could not be read when this session began. It is worth more than this one.
        later = [step for step in steps if step > written and step not in self._broken]
        newest = sorted(step for step in steps if step <= written)[-self.keep :]
        store.keep_only([f"checkpoint-{step}" for step in (*newest, *later)])

    def _last_copy_ended(self) -> bool:
        """Wait for the copies that were submitted; a place that hung once is not waited for again."""
        ended = self._copier.wait(self._wait_seconds)
        if not ended:
            self._wait_seconds = 0.0
        return ended

    def _warn(self, what: str, reason: str) -> None:
        line = f"{what} was not copied to {self.study.backup} ({reason}); the next checkpoint is tried again"
        print_line(f"[{self.run}] backup: {line}")

    @staticmethod
    def _steps(names: Iterable[str]) -> list[int]:
        return [int(found[1]) for name in names if (found := CHECKPOINT.fullmatch(name))]
