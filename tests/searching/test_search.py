"""A search by one or several workers, killed or not: the same trials, none lost and none repeated."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from loragrid.searching.search import Search
from loragrid.searching.search_result import summarise_trials, trial_rows
from loragrid.searching.trial_states import MAX_KILLS, is_settled
from loragrid.study.sections import Tune
from tests.fixtures import search_toys
from tests.fixtures.search_toys import TUNE, comparable_rows

WORKER = str(Path(search_toys.__file__))


def start(folder: Path, pause: float = 0.0) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, WORKER, str(folder), str(pause)])


def test_one_worker_makes_the_same_search_again(searched: Search, tmp_path: Path) -> None:
    again = search_toys.work(tmp_path)
    assert comparable_rows(again) == comparable_rows(searched)
    assert len({str(row["point"]) for row in trial_rows(again)}) == TUNE["trials"]
    other = search_toys.work(tmp_path / "other", tune=TUNE | {"seed": 1})
    assert [row["point"] for row in trial_rows(other)] != [row["point"] for row in trial_rows(searched)]


def test_killed_at_random_and_resumed_the_search_is_the_same(searched: Search, tmp_path: Path) -> None:
    """Kills in the middle of claims, of trials and of their ends, after the journal has grown by some lines."""
    rng, journal, lines, kills = random.Random(7), tmp_path / "journal.log", 0, 0
    while True:
        worker = start(tmp_path, pause=0.002)
        lines += rng.randint(40, 90)
        while worker.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < lines):
            time.sleep(0.0005)
        if worker.poll() is not None:
            break
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        kills += 1
    assert worker.returncode == 0 and kills >= 3
    search = Search(tmp_path, name="toy", tune=Tune.read(TUNE))
    assert comparable_rows(search) == comparable_rows(searched)
    left = [trial for trial in search.trials() if trial.state == TrialState.FAIL]
    assert left, "no kill hit a running trial"
    assert all(any(t.user_attrs.get("retry_of") == trial.number for t in search.trials()) for trial in left)


def test_a_trial_is_not_claimed_before_its_worker_has_released_it(tmp_path: Path) -> None:
    """Another worker may look between the record that a trial was left and the release of its lock."""
    one, other = (Search(tmp_path, name="toy", tune=Tune.read(TUNE)) for _ in range(2))
    with one.claim_next() as claim:
        one.finish(claim, outcome="SIGTERM")
        with other.claim_next() as second:
            assert second.slot != claim.slot
            other.finish(second, outcome="complete", value=1.0, loss=1.0)
    with other.claim_next() as again:
        assert again.slot == claim.slot


def test_several_workers_neither_lose_nor_repeat_a_trial(tmp_path: Path) -> None:
    workers = [start(tmp_path, pause=0.003) for _ in range(3)]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0, 0]
    search = Search(tmp_path, name="toy", tune=Tune.read(TUNE))
    assert [len(trials) for trials in search.by_slot()] == [1] * TUNE["trials"]
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in search.trials())
    assert len({str(row["point"]) for row in trial_rows(search)}) == TUNE["trials"]


def test_a_trial_that_ends_while_another_worker_checks_it_is_not_marked_as_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    search, other = (Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 1})) for _ in range(2))
    alive = other._alive
    with search.claim_next() as claim:

        def ends_before_its_lock_is_tried(slot: int) -> bool:
            search_toys.train(search, claim)
            claim.lock.__exit__(None, None, None)
            return alive(slot)

        monkeypatch.setattr(other, "_alive", ends_before_its_lock_is_tried)
        with other.claim_next() as second:
            assert second is None
        claim.lock.__enter__()
    assert [trial.state for trial in other.trials()] == [
        TrialState.COMPLETE
    ] and "was left" not in capfd.readouterr().err


def test_a_waiting_worker_takes_a_killed_worker_s_trial(tmp_path: Path) -> None:
    slow = start(tmp_path, pause=30.0)
    search = Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 1}))
    deadline = time.monotonic() + 20
    while not any(trial.state == TrialState.RUNNING and len(trial.params) == 3 for trial in search.trials()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.1)
    with search.claim_next() as claim:
        assert claim is None, "a living worker's trial was taken"
    slow.kill()
    slow.wait()
    with search.claim_next() as claim:
        assert claim is not None and claim.slot == 0
        assert claim.trial.params == search.trials()[0].params
        search_toys.train(search, claim)
    assert search.trials()[0].state == TrialState.FAIL and search.settled() == 1


def test_a_worker_that_lost_its_trial_cannot_overwrite_the_result(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    search, other = (Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 1})) for _ in range(2))
    with search.claim_next() as claim:
        claim.lock.__exit__(None, None, None)  # as after a sleep so long that the lock was lost
        with other.claim_next() as second:
            search_toys.train(other, second)
        assert not search.finish(claim, outcome="complete", value=0.0)
        claim.lock.__enter__()
    assert "taken over" in capfd.readouterr().err
    assert trial_rows(search)[0]["loss"] == pytest.approx(search_toys.loss(second.point, 9))


def test_a_trial_that_always_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    search = Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 2}))
    seen = 0
    while search.settled() < 2:
        with search.claim_next() as claim:
            if claim.slot == 1:
                search_toys.train(search, claim)
            seen += claim.slot == 0
    assert seen == MAX_KILLS
    first, second = trial_rows(search)
    assert first["outcome"] == "failed" and "killed 5 times" in first["reason"]
    assert second["outcome"] == "complete"


def test_failures_are_final_and_do_not_stop_the_search(tmp_path: Path) -> None:
    search = Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 4}))
    for outcome in ("out_of_memory", "failed", "diverged"):
        with search.claim_next() as claim:
            search.finish(claim, outcome=outcome, reason="because", curve=[], steps=3, planned_steps=18, seconds=1.0)
    with search.claim_next() as claim:
        search_toys.train(search, claim)
    assert [row["outcome"] for row in trial_rows(search)] == ["out_of_memory", "failed", "diverged", "complete"]
    assert [trial.state.name for trial in search.trials()] == ["FAIL", "FAIL", "PRUNED", "COMPLETE"]
    found = summarise_trials(trial_rows(search), search.space)
    assert found["best"]["slot"] == 3 and found["outcomes"]["diverged"] == 1


def test_a_trial_left_on_purpose_is_tried_again_and_does_not_count_as_a_kill(tmp_path: Path) -> None:
    search = Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 1}))
    for _ in range(MAX_KILLS + 1):
        with search.claim_next() as claim:
            search.finish(claim, outcome="SIGTERM", steps=2, planned_steps=18)
    assert search.settled() == 0 and trial_rows(search)[0]["outcome"] == "open"
    assert len({str(trial.params) for trial in search.trials()}) == 1


def test_more_trials_continue_the_search_and_fewer_delete_none(searched: Search, tmp_path: Path) -> None:
    search_toys.work(tmp_path, tune=TUNE | {"trials": 10})
    longer = search_toys.work(tmp_path)
    assert comparable_rows(longer) == comparable_rows(searched)
    shorter = Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 5}))
    assert len(trial_rows(shorter)) == 5 == shorter.settled()


@pytest.mark.parametrize("trials", [3, 1])
def test_a_worker_killed_as_it_claims_leaves_a_trial_that_the_next_one_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int
) -> None:
    """Slot 1 is enqueued and never claimed; another worker holds slot 0 and then leaves it.

    By then the search may have been shortened so that it ends before slot 1.
    """
    first, dying = (Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 3})) for _ in range(2))
    with first.claim_next() as claim:
        monkeypatch.setattr(dying._study, "ask", lambda **_: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception), dying.claim_next():
            pass
        first.finish(claim, outcome="SIGTERM", steps=1, planned_steps=18)
    resumed = search_toys.work(tmp_path, tune=TUNE | {"trials": trials})
    assert resumed.settled() == trials
    assert [len(slot) for slot in resumed.by_slot()] == ([2, 1, 1] if trials == 3 else [2, 1])


def test_an_empty_slot_is_not_settled() -> None:
    assert not is_settled([])
