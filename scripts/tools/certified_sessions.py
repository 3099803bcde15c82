"""The sessions of a run that the resume certificate kills: in one process, in several, or in a resident worker."""

import fcntl
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loragrid.paths import SCRIPTS
from loragrid.study.study_file import Study
from loragrid.training.forked_sessions import do_as_worker
from loragrid.training.kill_and_resume import REFERENCE
from loragrid.training.ranks.forked_ranks import fork_ranks
from train import train_as_rank, train_run


@dataclass(frozen=True)
class Sessions:
    """How a session trains: in so many processes together (`gpus`), or as a job of a resident worker."""

    gpus: int = 1
    worker: bool = False


def session_trainer(sessions: Sessions, study: Study, data_folder: Path, *, earlier: Study) -> Callable[[Path], None]:
    """A function that trains the study's only cell in a folder.

    `earlier`: a study whose only cell a resident worker trains before, on the same base and data.
    """
    cell, gpus = study.cells[0], sessions.gpus

    def train(out: Path) -> None:
        train_run(study=study, cell=cell, data_folder=data_folder, out=out)

    def train_by_several(out: Path) -> None:
        what = {"study": study, "cell": cell, "data_folder": data_folder, "out": out}
        _wait_until_unlocked(out)
        fork_ranks(lambda: train_as_rank(**what), run=cell.run, count=gpus, out=out)

    def train_in_worker(out: Path) -> None:
        if out.name == REFERENCE:
            train(out)
            return
        before = out.with_name(f"{out.name}-earlier")
        # A run that is finished already would leave no base in the worker.
        shutil.rmtree(before, ignore_errors=True)
        do_as_worker([_command(earlier, data_folder, before), _command(study, data_folder, out)])

    if sessions.worker:
        return train_in_worker
    return train if gpus == 1 else train_by_several


def _command(study: Study, data_folder: Path, out: Path) -> list[str]:
    """The train stage's command line for the only cell of a study."""
    command = [str(SCRIPTS / "train.py"), "--study", str(study.path), "--run", study.cells[0].run]
    return [*command, "--data", str(data_folder), "--out", str(out)]


def _wait_until_unlocked(out: Path) -> None:
    """Wait for the end of killed ranks: they are no children of this process, which cannot wait for them otherwise."""
    lock = out / "trainer.lock"
    if lock.exists():
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
