"""The backup of a study: when the workflow starts, finished results are taken up from it, or copied to it."""

import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from loragrid.backup.copies import MANIFEST, BrokenCopy
from loragrid.backup.places import PlaceError, open_place
from loragrid.backup.results import FINAL, FINISHED, copies_of, copy_result, finished_name, is_finished, take_result
from loragrid.errors import UserError
from loragrid.workflow.jobs import Jobs


class StudyBackup:
    """The place for copies of a study's results; for a study without one, every method does nothing."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.study, self.place = jobs, jobs.study, None
        self._looked = False

    def take_up(self) -> None:
        """Put finished results that are only at the place into this machine's folders, before Snakemake plans its jobs.

        Raises `UserError` for a place that cannot be read and written. The jobs that train take up checkpoints.
        """
        if self.study.backup is None:
            return
        self.place = open_place(self.study.backup)
        try:
            self.place.check()
            copies = self._finished_copies()
            taken = [self._take(*result, copies) for result in self._results()]
        except PlaceError as error:
            fix = "check the place, its credentials and the network, or leave backup out"
            raise UserError(f"backup: {self.study.backup} cannot be used ({error}). Fix: {fix}.") from None
        if any(taken):
            self._say(f"{sum(taken)} finished results are taken from {self.study.backup}")

    def copy_missing(self, workflow: Any) -> None:
        """Copy finished results that the place lacks, once; a failure is one line and stops nothing.

        `workflow` is Snakemake's, after planning: only results that it would not make again are copied.
        """
        if self.place is None or workflow.dag is None or self._looked:
            return
        self._looked = True
        kept = {str(file) for job in workflow.dag.jobs if not workflow.dag.needrun(job) for file in job.output}
        try:
            copies = self._finished_copies()
        except PlaceError as error:
            self._say(f"{self.study.backup} cannot be read ({error}): earlier results are not copied now")
            return
        copied = 0
        for stage, name, folder in self._results():
            there = f"{stage}/{name}/{finished_name(self.study, stage)}" in copies
            if not there and str(folder / FINAL[stage]) in kept and is_finished(folder, stage):
                copied += copy_result(self.study, stage, name, folder)
        if copied:
            self._say(f"{copied} finished results are copied to {self.study.backup}")

    def _take(self, stage: str, name: str, folder: Path, copies: Collection[str]) -> bool:
        """Take up one result; returns whether it was."""
        there = [copy for copy in copies if copy.startswith(f"{stage}/{name}/")]
        if is_finished(folder, stage) or not there:
            return False
        reason = "it is of other code or tasks"
        if f"{stage}/{name}/{finished_name(self.study, stage)}" in there:
            try:
                take_result(self.study, copies_of(self.place, self.study, stage, name), stage, folder)
                return True
            except BrokenCopy as broken:
                reason = f"it is broken: {broken}"
        self._say(f"the copy of {stage} {name} is not taken ({reason}): the result is made again")
        return False

    def _results(self) -> Iterator[tuple[str, str, Path]]:
        """Stage, name and folder of every result that is copied once it is finished."""
        base, study, winner = Path(self.jobs.results), self.study, self.jobs.winner()
        for name in study.data_sets:
            yield "data", name, base / "data" / name
        for run in (*(cell.run for cell in study.cells), *([winner] if winner else [])):
            yield "train", run, base / "train" / run
        for file in self.jobs.score_files(winner, partial=False):
            folder = Path(file).parent
            yield "score", folder.name, folder

    def _finished_copies(self) -> set[str]:
        """`STAGE/NAME/COPY` of every copy of a finished result."""
        found = set()
        for path in self.place.sizes(self.study.name):
            folder, _, file = path.removeprefix(f"{self.study.name}/").rpartition("/")
            if (match := MANIFEST.fullmatch(file)) and match[1].startswith(FINISHED):
                found.add(f"{folder}/{match[1]}")
        return found

    @staticmethod
    def _say(line: str) -> None:
        print(f"loragrid: backup: {line}", file=sys.stderr, flush=True)
