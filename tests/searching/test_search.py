"""The search itself: the same trials again, killed or not, by one worker or several; a storage that others can open."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from loragrid.searching import search_result
from loragrid.searching.hyperband_brackets import bracket_order, make_pruner
from loragrid.searching.journal import cut_torn_line
from loragrid.searching.search import MAX_KILLS, Search, is_settled
from loragrid.searching.search_result import summarize, importance, trial_rows
from loragrid.study.sections import Tune
from tests.fixtures import search_toys
from tests.fixtures.search_toys import TUNE

WORKER = str(Path(search_toys.__file__))


def results(search: Search) -> list[tuple]:
    """What must not depend on kills: per slot its parameters, outcome, curve, and whether it was modelled."""
    return [
        (row["slot"], row["point"], row["outcome"], row["curve"], row["bracket"], row["modelled"])
        for row in trial_rows(search)
    ]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Search:
    return search_toys.work(tmp_path_factory.mktemp("searched"))


def start(folder: Path, pause: float = 0.0) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, WORKER, str(folder), str(pause)])


def test_one_worker_makes_the_same_search_again(searched: Search, tmp_path: Path) -> None:
    again = search_toys.work(tmp_path)
    assert results(again) == results(searched)
    assert len({str(row["point"]) for row in trial_rows(again)}) == TUNE["trials"]
    other = search_toys.work(tmp_path / "other", tune=TUNE | {"seed": 1})
    assert [row["point"] for row in trial_rows(other)] != [row["point"] for row in trial_rows(searched)]


def test_killed_at_random_and_resumed_the_search_is_the_same(searched: Search, tmp_path: Path) -> None:
    """Killed as soon as the journal has grown by so many lines: in the middle of claims, trials and their ends."""
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
    assert results(search) == results(searched)
    left = [trial for trial in search.trials() if trial.state == TrialState.FAIL]
    assert left, "no kill came in the middle of a trial"
    assert all(any(t.user_attrs.get("retry_of") == trial.number for t in search.trials()) for trial in left)


def test_a_trial_that_its_worker_is_still_leaving_is_not_claimed(tmp_path: Path) -> None:
    """Between the word that a trial was left and the release of its lock another worker may poll."""
    one, other = (Search(tmp_path, name="toy", tune=Tune.read(TUNE)) for _ in range(2))
    with one.claim_next() as claim:
        one.finish(claim, outcome="SIGTERM")
        with other.claim_next() as second:
            assert second.slot != claim.slot
            other.finish(second, outcome="complete", loss=1.0)
    with other.claim_next() as again:
        assert again.slot == claim.slot


def test_several_workers_lose_and_repeat_no_trial(tmp_path: Path) -> None:
    workers = [start(tmp_path, pause=0.003) for _ in range(3)]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0, 0]
    search = Search(tmp_path, name="toy", tune=Tune.read(TUNE))
    assert [len(trials) for trials in search.by_slot()] == [1] * TUNE["trials"]
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in search.trials())
    assert len({str(row["point"]) for row in trial_rows(search)}) == TUNE["trials"]


def test_a_trial_that_ends_while_another_worker_looks_at_it_was_not_left(
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


def test_a_killed_worker_s_trial_is_taken_by_another_that_was_there_all_along(tmp_path: Path) -> None:
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


def test_a_worker_that_was_taken_for_dead_cannot_overwrite(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    search, other = (Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 1})) for _ in range(2))
    with search.claim_next() as claim:
        claim.lock.__exit__(None, None, None)  # as after a sleep so long that the lock was lost
        with other.claim_next() as second:
            search_toys.train(other, second)
        assert not search.finish(claim, outcome="complete", loss=0.0)
        claim.lock.__enter__()
    assert "taken over" in capfd.readouterr().err
    assert trial_rows(search)[0]["loss"] == pytest.approx(search_toys.loss(second.point, 9))


def test_a_trial_whose_worker_always_dies_is_given_up(tmp_path: Path) -> None:
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


def test_failures_stand_and_do_not_stop_the_search(tmp_path: Path) -> None:
    search = Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 4}))
    for outcome in ("out_of_memory", "failed", "diverged"):
        with search.claim_next() as claim:
            search.finish(claim, outcome=outcome, reason="because", curve=[], steps=3, planned_steps=18, seconds=1.0)
    with search.claim_next() as claim:
        search_toys.train(search, claim)
    assert [row["outcome"] for row in trial_rows(search)] == ["out_of_memory", "failed", "diverged", "complete"]
    assert [trial.state.name for trial in search.trials()] == ["FAIL", "FAIL", "PRUNED", "COMPLETE"]
    found = summarize(trial_rows(search), search.space)
    assert found["best"]["slot"] == 3 and found["outcomes"]["diverged"] == 1


def test_a_trial_that_was_left_on_purpose_is_tried_again_and_counts_as_no_kill(tmp_path: Path) -> None:
    search = Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 1}))
    for _ in range(MAX_KILLS + 1):
        with search.claim_next() as claim:
            search.finish(claim, outcome="SIGTERM", steps=2, planned_steps=18)
    assert search.settled() == 0 and trial_rows(search)[0]["outcome"] == "open"
    assert len({str(trial.params) for trial in search.trials()}) == 1


def test_more_trials_go_on_with_the_search_and_fewer_forget_none(searched: Search, tmp_path: Path) -> None:
    search_toys.work(tmp_path, tune=TUNE | {"trials": 10})
    longer = search_toys.work(tmp_path)
    assert results(longer) == results(searched)
    shorter = Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 5}))
    assert len(trial_rows(shorter)) == 5 == shorter.settled()


def test_the_storage_opens_with_optuna_alone(searched: Search) -> None:
    journal = searched.folder.parents[1] / "journal.log"
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name="toy", storage=storage)
    assert len(study.trials) == TUNE["trials"] and study.direction.name == "MINIMIZE"
    assert study.best_value == summarize(trial_rows(searched), searched.space)["best"]["loss"]
    assert optuna.get_all_study_names(storage) == ["toy"]
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert pruned and all(trial.intermediate_values for trial in pruned)


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


def test_a_line_that_one_worker_tears_is_mended_by_those_that_go_on(tmp_path: Path) -> None:
    living = Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 3}))
    with living.claim_next() as claim, open(tmp_path / "journal.log", "ab") as journal:
        journal.write(TORN)
        journal.flush()
        search_toys.train(living, claim)
    resumed = search_toys.work(tmp_path, tune=TUNE | {"trials": 3})
    assert living.settled() == resumed.settled() == 3 and results(living) == results(resumed)


@pytest.mark.parametrize("trials", [3, 1])
def test_a_worker_killed_as_it_claims_leaves_a_trial_that_the_next_one_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int
) -> None:
    """Slot 1 is enqueued and never asked for, while slot 0 is another worker's, who then leaves it; the search may have been
    made shorter than slot 1 in the meantime."""
    first, dying = (Search(tmp_path, name="toy", tune=Tune.read(TUNE | {"trials": 3})) for _ in range(2))
    with first.claim_next() as claim:
        monkeypatch.setattr(dying._study, "ask", lambda **_: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception), dying.claim_next():
            pass
        first.finish(claim, outcome="SIGTERM", steps=1, planned_steps=18)
    resumed = search_toys.work(tmp_path, tune=TUNE | {"trials": trials})
    assert resumed.settled() == trials
    assert [len(slot) for slot in resumed.by_slot()] == ([2, 1, 1] if trials == 3 else [2, 1])


def test_pruning_saves_steps_and_keeps_the_good(searched: Search) -> None:
    rows = trial_rows(searched)
    found = summarize(rows, searched.space)
    assert found["steps_saved"] >= 0.4
    assert found["steps"] == sum(row["steps"] for row in rows) and found["steps_in_full"] == 18 * len(rows)
    full = {row["slot"]: search_toys.loss(row["point"], 9) for row in rows}
    assert found["best"]["slot"] == min(full, key=full.get)
    assert full[found["best"]["slot"]] == found["best"]["loss"]
    assert found["best"]["measured"] == len(rows) and found["best"]["place_at_first"] >= 1
    neighbours = found["best"]["neighbours"]
    assert [n["distance"] for n in neighbours] == sorted(n["distance"] for n in neighbours) and len(neighbours) == 3
    assert all(n["best_loss_there"] <= n["loss"] for n in neighbours)


def test_how_many_trials_were_modelled_is_counted(searched: Search) -> None:
    rows = trial_rows(searched)
    relative = {t.number for t in searched.trials() if any(k.startswith("tpe:") for k in t.system_attrs)}
    assert {row["number"] for row in rows if row["modelled"]} == relative
    assert len(relative) == len(rows) - TUNE["startup_trials"]


def test_without_a_pruner_every_trial_runs_to_its_end(tmp_path: Path) -> None:
    search = search_toys.work(tmp_path, tune=TUNE | {"pruner": None, "trials": 6})
    found = summarize(trial_rows(search), search.space)
    assert found["outcomes"] == {"complete": 6} and found["steps_saved"] == 0 and found["modelled"] == 2


def test_importance_is_the_same_again_and_silent_where_there_is_too_little(searched: Search, tmp_path: Path) -> None:
    found = importance(searched)
    assert found == importance(searched)
    assert next(iter(found["shares"])) == "learning_rate" and sum(found["shares"].values()) == pytest.approx(1)
    assert found["at"] == "end"
    few = search_toys.work(tmp_path, tune=TUNE | {"trials": 2})
    assert importance(few) == {"at": "first", "trials": 2, "shares": None}


def test_where_too_few_trials_are_complete_importance_is_told_from_the_first_losses(
    searched: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_result, "MIN_TRIALS", 15)
    rows = trial_rows(searched)
    found, told = summarize(rows, searched.space), importance(searched)
    assert 0 < found["outcomes"]["complete"] < 15 and found["median_complete_loss"] is None
    assert (told["at"], told["trials"]) == ("first", 24) and next(iter(told["shares"])) == "learning_rate"
    first = sorted(search_toys.loss(row["point"], 1) for row in rows)
    assert found["median_first_loss"] == pytest.approx((first[11] + first[12]) / 2)


def test_brackets_take_turns_in_their_shares() -> None:
    order = bracket_order([9, 5, 3])
    assert [order.count(i) for i in range(3)] == [9, 5, 3]
    assert order[:4] == [0, 1, 0, 2]
    pruner = make_pruner(Tune.read(TUNE))
    assert len(pruner._pruners) == 3
    assert [pruner.bracket(slot) for slot in range(17)] == order == [pruner.bracket(slot) for slot in range(17, 34)]


def test_pruning_decisions_are_optuna_s_own(searched: Search) -> None:
    """Each bracket, replayed alone through Optuna's successive halving, prunes the same trials at the same place."""
    for bracket in range(3):
        rows = [row for row in trial_rows(searched) if row["bracket"] == bracket]
        halving = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=1, reduction_factor=3, min_early_stopping_rate=bracket
        )
        study = optuna.create_study(pruner=halving)
        for row in rows:
            trial = study.ask()
            last = replay(trial, row["point"])
            assert last == row["curve"][-1][0]
            study.tell(trial, search_toys.loss(row["point"], last))


def replay(trial: optuna.Trial, point: dict[str, Any]) -> int:
    for part in range(1, 10):
        trial.report(search_toys.loss(point, part), part)
        if part < 9 and trial.should_prune():
            return part
    return 9


def test_an_empty_slot_is_not_settled() -> None:
    assert not is_settled([])
