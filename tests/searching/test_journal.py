"""The search's storage: Optuna alone can open it, torn lines are cut off, and no lock outlives its process."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from filelock import Timeout
from optuna.trial import TrialState

from loragrid.searching.journal import cut_torn_line, process_lock
from loragrid.searching.search import Search
from loragrid.searching.search_result import summarise_trials, trial_rows
from loragrid.study.sections import Tune
from tests.fixtures import search_toys
from tests.fixtures.search_toys import TUNE, comparable_rows

HOLDER = """
import sys, time
from pathlib import Path
from loragrid.searching.journal import process_lock

with process_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_excludes_other_processes_and_ends_with_its_own(tmp_path: Path) -> None:
    path = tmp_path / "journal.log.flock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    lock = process_lock(path)
    with pytest.raises(Timeout):
        lock.acquire(timeout=0.1)
    holder.kill()
    holder.wait()
    killed_at = time.monotonic()
    with lock:
        assert time.monotonic() - killed_at < 5  # Optuna's own lock would block for 30 seconds.


def test_a_file_system_without_flock_is_an_error_and_no_lock_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.raises(OSError, match="not implemented"):
        process_lock(tmp_path / "lock").acquire()


def test_the_storage_opens_with_optuna_alone(searched: Search) -> None:
    journal = searched.folder.parents[1] / "journal.log"
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name="toy", storage=storage)
    assert len(study.trials) == TUNE["trials"] and study.direction.name == "MINIMIZE"
    assert study.best_value == summarise_trials(trial_rows(searched), searched.space)["best"]["loss"]
    assert optuna.get_all_study_names(storage) == ["toy"]
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert pruned and all(trial.intermediate_values for trial in pruned)


def test_the_dashboard_opens_the_journal(searched: Search) -> None:
    """The page of `optuna-dashboard journal.log`, asked for the studies and for the trials of one."""
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    from optuna_dashboard._storage_url import get_storage

    app = dashboard.wsgi(get_storage(str(searched.folder.parents[1] / "journal.log")))

    def ask(path: str) -> dict[str, Any]:
        environment = {"PATH_INFO": path}
        setup_testing_defaults(environment)
        statuses: list[str] = []
        body = b"".join(app(environment, lambda status, *_: statuses.append(status)))
        assert statuses[0].startswith("200"), (statuses, body)
        return json.loads(body)

    (study,) = ask("/api/studies")["study_summaries"]
    assert study["study_name"] == "toy" and study["directions"] == ["minimize"]
    shown = ask(f"/api/studies/{study['study_id']}")
    assert len(shown["trials"]) == TUNE["trials"]
    states = {trial["state"] for trial in shown["trials"]}
    assert states == {"Complete", "Pruned"}
    assert {param["name"] for param in shown["trials"][0]["params"]} == set(searched.space)


TORN = b'{"op_code": 4, "worker'


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    search_toys.work(tmp_path, tune=TUNE | {"trials": 2})
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + TORN)
    assert search_toys.work(tmp_path, tune=TUNE | {"trials": 3}).settled() == 3
    assert journal.read_bytes().startswith(whole) and TORN + b"{" not in journal.read_bytes()
    journal.write_bytes(TORN)
    cut_torn_line(journal)
    assert journal.read_bytes() == b""


def test_a_line_torn_by_one_worker_is_cut_off_by_the_others(tmp_path: Path) -> None:
    living = Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 3}))
    with living.claim_next() as claim, open(tmp_path / "journal.log", "ab") as journal:
        journal.write(TORN)
        journal.flush()
        search_toys.train(living, claim)
    resumed = search_toys.work(tmp_path, tune=TUNE | {"trials": 3})
    assert living.settled() == resumed.settled() == 3 and comparable_rows(living) == comparable_rows(resumed)
