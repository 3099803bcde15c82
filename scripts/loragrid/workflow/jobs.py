"""The jobs of a study: their inputs, priorities and resources, by the names in Snakemake's
wildcards."""

from functools import cached_property
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.models.adopted_adapters import check_local_adapters
from loragrid.models.base_checks.tensors import check_local_bases
from loragrid.planning.job_memory import check_study_modules
from loragrid.planning.job_resources import Request, resource_requests
from loragrid.runtime.atomic_files import sha256_file, sha256_json
from loragrid.study.grid import Cell
from loragrid.study.run_names import run_of, subject_at
from loragrid.study.search.search_point import settings_sha256
from loragrid.study.search.winner import winner_cell
from loragrid.study.sections import HELDOUT_LOSS
from loragrid.study.study_file import Study
from loragrid.study.training_sets import training_sets
from loragrid.workflow.data_processes import data_processes
from loragrid.workflow.run_checks import check_runs


class Jobs:
    """Every job of one study whose results are in the folder `results`.

    Names are ids: of a data set, or of a subject of scoring. A subject is a base, a run, a run at a
    part of its budget (`{run}@{share}`) or an adopted adapter.
    """

    def __init__(self, study: Study, *, results: str, session_minutes: float | None) -> None:
        """`session_minutes`: the command line's, None for the study file's.

        Raises `UserError` for modules that no model has, for a base or an adopted adapter that cannot be used, and
        for runs that cannot be what their settings say.
        """
        check_study_modules(study, study.cells)
        check_local_bases(study)
        check_local_adapters(study)
        check_runs(study, Path(results))
        self.study, self.results = study, results
        self.searched = study.tune is not None and study.tune.enabled
        adopting = {name: study.bases[adopted.cell.base] for name, adopted in study.adopted.items()}
        # A base, and an adapter adopted for it, is scored on the held-out rows of the base's first
        # run. They are the same rows in all data sets of a study.
        self._cells = {cell.run: cell for cell in study.cells} | study.bases | adopting
        cells = (*study.cells, *adopting.values())
        self._requests = resource_requests(study, cells, results=Path(results), session_minutes=session_minutes)

    @cached_property
    def cell_order(self) -> dict[str, int]:
        """Position of the first cell that needs a run, base or data set."""
        order: dict[str, int] = {}
        for position, cell in enumerate(self.study.cells):
            for name in (cell.run, cell.base, cell.data):
                order.setdefault(name, position)
        return order

    def priority(self, name: str) -> int:
        """Priority of scoring a subject, so that an interrupted session leaves a usable study.

        Earlier cells come first, and a base is scored with the first cell that is compared with it.
        Odd numbers are those of `train_priority`. Adopted adapters and the search's winner come last.
        """
        cells = len(self.study.cells)
        return 2 * (cells - self.cell_order.get(run_of(name), cells))

    def train_priority(self, run: str) -> int:
        """Priority of the training of a run: a cell is trained once all cells before it are scored, if not by vLLM."""
        return self.priority(run) - 1 + self._before_scores

    def data_priority(self, data: str) -> int:
        """Priority of the preparation of a data set: before its first cell is trained."""
        return self.priority(data) + self._before_scores

    @property
    def _before_scores(self) -> int:
        """What lifts the priority of a job above that of every score job where vLLM scores, else 0.

        vLLM has the GPU to itself and takes a minute to start, so all cells are trained before one engine scores them.
        """
        return 2 * len(self.study.cells) if self.study.scoring.engine == "vllm" else 0

    def winner(self) -> str | None:
        """The run id of the search's winner, where the search is part of the study, done, and found
        a run of its own."""
        cell = self._winner_cell()
        return None if cell is None else cell.run

    def has(self, subject: str) -> bool:
        """Whether the study file itself holds this subject; a search's winner it does not."""
        return run_of(subject) in self._cells

    def card(self, subject: str) -> str:
        """Path of the data card of a subject; an id that the study does not have is a
        `UserError`."""
        return f"{self.results}/data/{self._cell(subject).data}/card.json"

    def record(self, subject: str) -> str:
        """Path of the record of the run that a subject is made by."""
        return f"{self.results}/train/{run_of(subject)}/record.json"

    def threads(self, run: str) -> int:
        """CPU threads of a run's training: those of each of its processes, on which its result depends."""
        return self._cell(run).settings.threads * self.study.training.gpus

    def data_processes(self, data: str) -> int:
        """Processes that prepare a data set, without effect on it."""
        # The data set of a search's winner is not the study's own; most searches change no data.
        cell = self.study.data_sets.get(data)
        return data_processes(self.study, self.study.base_case.data if cell is None else cell.settings.data)

    def study_file(self, name: str) -> str:
        """The study file that holds a subject or a data set, as a word for the shell: this one, or
        the winner's."""
        if run_of(name) in self._cells or name in self.study.data_sets:
            return '"$STUDY"'
        return f"{self.results}/tune/winner/{self.study.name}.yaml"

    def request(self, stage: str, name: str) -> Request:
        """What a job of "train", "score" or "tune" asks for: `vram_mib` binds with `--resources
        vram_mib=…`, `mem_mb` and `runtime` on a cluster.

        An adopted adapter asks for what its base does, the search's winner for what the base case
        does.
        """
        requests, name = self._requests[stage], run_of(name)
        if name in self.study.adopted:
            name = self._cells[name].base
        return requests[name] if name in requests else requests[self.study.cells[0].run]

    def score_files(self, winner: str | None, *, partial: bool) -> list[str]:
        """Score records of all subjects and the `winner`; with `partial` only those that exist."""
        subjects = list(self.study.bases)
        for run in (*(cell.run for cell in self.study.cells), *([winner] if winner else [])):
            subjects += [run, *(subject_at(run, share) for share in self.study.scoring.at if share < 1)]
        subjects += self.study.adopted
        files = [f"{self.results}/score/{subject}/score.json" for subject in subjects]
        return [file for file in files if Path(file).exists()] if partial else files

    def contamination_files(self, *, partial: bool) -> list[str]:
        """Files on contaminated items, one for each data set that is trained on; with `partial` only those that exist.

        A study that scores nothing but the held-out loss has none.
        """
        if set(self.study.scoring.tasks) <= {HELDOUT_LOSS}:
            return []
        files = [f"{self.results}/find_contamination/{data}.json" for data in training_sets(self.study).values()]
        return [file for file in files if Path(file).exists()] if partial else files

    def export_files(self, run: str | None) -> list[str]:
        """What an export of `run` is made from; of None, which stands for the run that the page names, the comparison.

        An id that the study does not have is a `UserError`.
        """
        if run is None:
            return [f"{self.results}/compare/compare.json"]
        subjects = run, self._cell(run).base
        return [self.record(run), *(f"{self.results}/score/{subject}/score.json" for subject in subjects)]

    def _cell(self, subject: str) -> Cell:
        """The cell of a run; for a base or an adopted adapter the cell whose data it is scored on."""
        run = run_of(subject)
        if run in self._cells:
            return self._cells[run]
        winner = self._winner_cell()
        if winner is None or winner.run != run:
            raise UserError(f"{subject}: not a run or base of {self.study.name}. Fix: see `snakemake -n`.")
        return winner

    def _winner_cell(self) -> Cell | None:
        return winner_cell(self.study, Path(self.results)) if self.searched else None

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
