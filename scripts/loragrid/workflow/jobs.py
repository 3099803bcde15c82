"""The jobs of a study: their inputs, priorities and resources, by the names in Snakemake's
wildcards."""

from functools import cached_property
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.planning.job_memory import check_study_modules
from loragrid.planning.job_resources import Request, resource_requests
from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.study.search_point import settings_sha256
from loragrid.study.study_file import Study
from loragrid.study.winner import winner_cell


class Jobs:
    """Every job of one study whose results are in the folder `results`.

    A subject is a run or a base; names are ids: of a run, a base or a data set.
    """

    def __init__(self, study: Study, *, results: str, session_minutes: float | None) -> None:
        """`session_minutes`: the command line's, None for the study file's. Raises `UserError` for
        modules no model has."""
        check_study_modules(study, study.cells)
        self.study, self.results = study, results
        self.searched = study.tune is not None and study.tune.enabled
        # A base is scored on the held-out rows of its runs, so it shares their data set.
        self.data_of = {cell.run: cell.data for cell in study.cells} | {cell.base: cell.data for cell in study.cells}
        self._requests = resource_requests(study, study.cells, results=Path(results), session_minutes=session_minutes)

    @cached_property
    def cell_order(self) -> dict[str, int]:
        """Position of the first cell that needs a run, base or data set."""
        order: dict[str, int] = {}
        for position, cell in enumerate(self.study.cells):
            for name in (cell.run, cell.base, cell.data):
                order.setdefault(name, position)
        return order

    def priority(self, name: str) -> int:
        """Priority of a job on a run, base or data set, so that whatever a session leaves is a
        usable study.

        Earlier cells come first, and a base is scored with the first cell that is compared with it.
        Odd numbers are free for the train rule: a cell is trained once all cells before it are
        scored. The search's winner comes last.
        """
        cells = len(self.study.cells)
        return 2 * (cells - self.cell_order.get(name, cells))

    def winner(self) -> str | None:
        """The run id of the search's winner, where the search is part of the study, done, and found
        a run of its own."""
        cell = winner_cell(self.study, Path(self.results)) if self.searched else None
        return None if cell is None else cell.run

    def card(self, subject: str) -> str:
        """Path of the data card of a run or a base; an id that the study does not have is a
        `UserError`."""
        data = self.data_of.get(subject)
        if data is None:
            if subject != self.winner():
                raise UserError(f"{subject}: not a run or base of {self.study.name}. Fix: see `snakemake -n`.")
            data = self.study.cells[0].data  # the winner departs from the base case, which is the first cell
        return f"{self.results}/data/{data}/card.json"

    def study_file(self, subject: str) -> str:
        """The study file that holds a run or a base, as a word for the shell: this one, or the
        winner's."""
        return '"$STUDY"' if subject in self.data_of else f"{self.results}/tune/winner/{self.study.name}.yaml"

    def request(self, stage: str, name: str) -> Request:
        """What a job of "train", "score" or "tune" asks for: `vram_mib` binds with `--resources
        vram_mib=…`, `mem_mb` and `runtime` on a cluster. The search's winner asks for what the base
        case does."""
        requests = self._requests[stage]
        return requests[name] if name in requests else requests[self.study.cells[0].run]

    def score_files(self, winner: str | None, *, partial: bool) -> list[str]:
        """Score records of all bases, runs and the `winner`; with `partial` only those that
        exist."""
        subjects = [*self.study.bases, *(cell.run for cell in self.study.cells), *([winner] if winner else [])]
        files = [f"{self.results}/score/{subject}/score.json" for subject in subjects]
        return [file for file in files if Path(file).exists()] if partial else files

    @property
    def search_result(self) -> str:
        """Path of the search's result."""
        return f"{self.results}/tune/tune.json"

    def search_digest(self) -> str | None:
        """Digest of the settings of the search, its number of trials included; None without a
        search."""
        if self.study.tune is None:
            return None
        return sha256_json([settings_sha256(self.study), self.study.tune.trials])

    def shown_search_digest(self) -> str | None:
        """Digest of the result of a search that is not part of the study: the page shows it but
        never makes it run again."""
        if self.searched or not Path(self.search_result).exists():
            return None
        return sha256_file(self.search_result)


def files_digest(files: Any) -> str:
    """Digest of files that belong to the code, by name and content. As a param, not an input: the
    checkout may move."""
    return sha256_json([[file.name, sha256_file(file)] for file in sorted(files)])
