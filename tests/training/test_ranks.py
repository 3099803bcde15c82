"""Two processes train one run: the numbers of one process, killed and resumed to the same bytes."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import Failed, UserError
from loragrid.models.passes.row_losses import POSITIONS_PER_PASS
from loragrid.runtime import provenance
from loragrid.study.batch_shares import divided_batch
from loragrid.training.kill_and_resume import comparable_result
from loragrid.training.ranks.forked_ranks import fork_ranks
from tests.fixtures.train_toys import Toy, make_toy, rows_of

# 15 batches of two rows an epoch: its last update has a batch for one process only.
CHANGES: dict[str, Any] = {"base_case__budget": {"steps": 9}, "base_case__evaluations": 3, "training__save_steps": 4}


def train(toy: Toy, out: Path, before: Callable[[], None] = lambda: None, gpus: int = 2) -> None:
    """Train a run by forked ranks; each calls `before` first."""
    from train import train_as_rank

    def as_rank() -> None:
        before()
        train_as_rank(study=toy.study, cell=toy.cell, data_folder=toy.data, out=out)

    out.parent.mkdir(parents=True, exist_ok=True)
    fork_ranks(as_rank, run=toy.cell.run, count=gpus, out=out)


@pytest.fixture(scope="module")
def two(toy_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A toy with dropout, whose runs take two GPUs."""
    toy = make_toy(tmp_path_factory.mktemp("two"), toy_llama, training__gpus=2, **CHANGES)
    # Before any fork: each would import them again.
    from loragrid.training.backends.trl_trainer import import_trainer

    import_trainer()
    return toy


@pytest.fixture(scope="module")
def undisturbed(two: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(two, out)
    return out


@pytest.mark.parametrize(
    "changes", [{"base_case__batch": [4, 1]}, {"base_case__packing": True}], ids=["batch that gets smaller", "packed"]
)
def test_losses_and_counts_are_those_of_one_process(
    toy_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    # Several held-out passes, an odd number.
    monkeypatch.setitem(POSITIONS_PER_PASS, "cpu", 130)
    named = CHANGES | {"base_case__dropout": 0.0} | changes
    toy = make_toy(tmp_path, toy_llama, **named)
    toy.train(tmp_path / "one")
    train(make_toy(tmp_path / "two", toy_llama, training__gpus=2, **named), tmp_path / "run", before=_known_memory)
    one, run = rows_of(tmp_path / "one"), rows_of(tmp_path / "run")
    exact = ("step", "kind", "samples", "tokens", "loss_tokens", "learning_rate")
    assert [[row[name] for name in exact] for row in run] == [[row[name] for name in exact] for row in one]
    for name, tolerance in (("loss", 1e-5), ("grad_norm", 1e-4)):
        numbers = [[float(row[name] or 0) for row in rows] for rows in (run, one)]
        assert numbers[0] == pytest.approx(numbers[1], abs=tolerance)
    records = [json.loads((tmp_path / name / "record.json").read_text()) for name in ("one", "run")]
    same = ("run", "steps", "samples", "tokens", "loss_tokens", "padding_share", "trainable_parameters")
    assert [records[0][name] for name in same] == [records[1][name] for name in same]
    ends = [json.loads((tmp_path / name / "history.jsonl").read_text().splitlines()[-1]) for name in ("one", "run")]
    assert ends[0]["order_sha256"] == ends[1]["order_sha256"]
    assert ends[1]["peak_rss_mib"] == 300


def _known_memory() -> None:
    """A rank's own peak is that of the process it was forked from, so the ranks get peaks of 100 and 200 MiB."""
    provenance.peak_rss_mib = lambda: 100.0 * (1 + int(os.environ["LORAGRID_RANK"]))


def test_killed_and_resumed_it_is_the_undisturbed_run(two: Toy, undisturbed: Path, tmp_path: Path) -> None:
    """One process is killed: the launcher ends the other and says so in one line."""
    out = tmp_path / "run"
    killed = r"process 1 of 2 was killed by SIGKILL, and the others were ended\. Fix: run the same command again\."
    with pytest.raises(Failed, match=killed):
        train(two, out, before=lambda: _at(6, (1,), lambda progress: os.kill(os.getpid(), signal.SIGKILL)))
    assert not (out / "record.json").exists() and not (out / "adapter").exists()
    files = {file.name for file in (out / "checkpoints" / "checkpoint-4").iterdir()}
    assert {"rng_state.pth", "rng_state_1.pth"} <= files
    assert json.loads((out / "failure.json").read_text())["reason"] == "killed"
    train(two, out)
    assert comparable_result(out) == comparable_result(undisturbed)
    assert not (out / "failure.json").exists()


def _at(step: int, ranks: tuple[int, ...], act: Callable[[Any], None]) -> None:
    """In these ranks, `act` on the progress after that update."""
    from loragrid.training.progress import Progress

    record_update = Progress.record_update

    def and_act(self: Progress, **update: Any) -> None:
        record_update(self, **update)
        if self.totals.step == step and int(os.environ["LORAGRID_RANK"]) in ranks:
            act(self)

    Progress.record_update = and_act


def test_a_stop_of_one_process_stops_all_at_the_same_update(
    two: Toy, undisturbed: Path, toy_llama: Path, tmp_path: Path
) -> None:
    """It resumes with as many processes as it began, and with no other number."""
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as end:
        train(two, out, before=lambda: _at(5, (1,), lambda progress: progress.stop.request("SIGTERM")))
    assert end.value.code == 75
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"checkpoint-4", "checkpoint-5"}
    one = make_toy(tmp_path / "one", toy_llama, **CHANGES)
    with pytest.raises(UserError, match=r"its training\.gpus was 2 and is now 1\. Fix: set it back to resume"):
        one.train(out)
    train(two, out)
    assert comparable_result(out) == comparable_result(undisturbed)
    sessions = json.loads((out / "record.json").read_text())["sessions"]
    assert [(session["end_step"], session["ended"]) for session in sessions] == [(5, "SIGTERM"), (9, "finished")]


def test_a_base_that_is_split_over_the_processes_changes_no_bit(
    two: Toy, undisturbed: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """Also where the run is stopped and resumed. torch's FSDP runs on a CPU too."""

    def split() -> None:
        import train as stage

        stage.needs_split = lambda *_, **__: True
        whole = stage.split_base

        def and_check(model: Any, **named: Any) -> None:
            whole(model, **named)
            kinds = {type(parameter).__name__ for parameter in model.parameters() if not parameter.requires_grad}
            assert kinds == {"DTensor"}

        stage.split_base = and_check
        _at(5, (0,), lambda progress: progress.stop.request("SIGTERM"))

    out = tmp_path / "run"
    with pytest.raises(SystemExit):
        train(two, out, before=split)
    train(two, out, before=split)
    assert comparable_result(out) == comparable_result(undisturbed)
    assert capfd.readouterr().err.count("one GPU does not hold the base: it is split over 2") == 2


def test_an_error_of_one_process_is_the_one_line(two: Toy, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    def fail(progress: Any) -> None:
        raise MemoryError("Unable to allocate 9.00 GiB")

    out = tmp_path / "run"
    with pytest.raises(Failed, match=r"out of host memory \(9216.0 MiB more needed"):
        train(two, out, before=lambda: _at(2, (1,), fail))
    assert json.loads((out / "failure.json").read_text())["reason"] == "out_of_memory"
    assert "failed: " not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("batch", "gpus", "divided"),
    [((2, 4), 2, (2, 4)), ((2, 4), 8, (1, 8)), ((4, 1), 2, (2, 2)), ((6, 2), 4, (3, 4)), ((3, 1), 2, None)],
)
def test_an_update_keeps_its_rows(batch: tuple[int, int], gpus: int, divided: tuple[int, int] | None) -> None:
    assert divided_batch(batch, gpus) == divided
