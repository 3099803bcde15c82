"""TensorBoard's event files, written by its own package."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from loragrid.errors import UserError
from loragrid.external.formats import event_files
from loragrid.external.reading import read_external

NAME = "events.out.tfevents.1700000000.machine.1.0"
needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed: requirements-test.txt"
)


def write_events(folder: Path, *, steps: int = 5, histogram: bool = False) -> Path:
    """An event file with a training loss of 2/n and a rate of 2e-4 at steps 10, 20, … and a held-out loss at the last."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))

    def add(step: int, **values: Any) -> None:
        texts = {tag.replace("_", "/", 1): value for tag, value in values.items()}
        added = [Summary.Value(tag=tag, simple_value=value) for tag, value in texts.items()]
        writer.add_event(Event(wall_time=step, step=step, summary=Summary(value=added)))

    for number in range(1, steps + 1):
        add(10 * number, train_loss=2 / number, train_learning_rate=2e-4, train_grad_norm=1.0)
    add(10 * steps, eval_loss=1.5)
    if histogram:
        value = Summary.Value(tag="weights", histo=HistogramProto(bucket_limit=[1.0], bucket=[2.0]))
        writer.add_event(Event(step=1, summary=Summary(value=[value])))
    writer.close()
    (file,) = folder.glob("*tfevents*")
    return file.rename(folder / NAME)


@needs_tensorboard
def test_an_event_file_is_the_curves_of_its_run(tmp_path: Path) -> None:
    write_events(tmp_path / "one", histogram=True)
    write_events(tmp_path / "two", steps=3)
    results = read_external(tmp_path)
    assert list(results.runs) == ["one", "two"], "steps are no table of runs"
    run = results.runs["one"]
    assert run.path.train_tokens.tolist() == [10, 20, 30, 40, 50] and run.path.train[0] == 2.0
    assert run.path.heldout.tolist() == [1.5] and run.path.grad_norm.tolist() == [1.0] * 5
    assert run.settings == {"steps": 50.0, "learning_rate": 0.0002} and run.path_unit == "steps"
    assert results.columns["weights"] == event_files.NO_CURVE
    assert not results.unused


@needs_tensorboard
def test_scalars_of_the_newer_form(tmp_path: Path) -> None:
    from tensorboard.summary import Writer

    writer = Writer(str(tmp_path / "keras"))
    for step in range(3):
        writer.add_scalar("val_loss", 1.0 - step / 10, step)
    writer.close()
    (run,) = read_external(tmp_path).runs.values()
    assert run.path.heldout.tolist() == [1.0, 0.9, 0.8]


@needs_tensorboard
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_file_is_read_up_to_there_and_named(tmp_path: Path, damage: str) -> None:
    file = write_events(tmp_path / "one")
    content = bytearray(file.read_bytes())
    if damage == "cut":
        del content[-20:]
    else:
        content[-20] ^= 255
    file.write_bytes(content)
    results = read_external(tmp_path)
    assert len(results.runs["one"].path.train) == 5 and not len(results.runs["one"].path.heldout)
    ((name, reason),) = results.unused
    assert name == NAME and reason == "damaged after 6 records of 7: the rest is not used"
    file.write_bytes(b"no events at all, whatever the name says")
    with pytest.raises(UserError, match="no run found"):
        read_external(tmp_path)


def test_without_the_package_one_line_says_how_to_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "find_spec", lambda name: None)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / NAME).write_bytes(b"events")
    message = r"no run found \(cannot be read: TensorBoard’s event files need tensorboard, which is not installed\)\. "
    with pytest.raises(UserError, match=message + "Fix: pip install tensorboard, or export the curves as CSV"):
        read_external(tmp_path)
    (tmp_path / "runs.csv").write_text("run,rank,acc\nx,8,0.5\ny,16,0.6\n")
    results = read_external(tmp_path)
    assert list(results.runs) == ["x", "y"]
    assert results.unused == [(f"a/{NAME}", f"cannot be read: {event_files.MISSING}")]


@pytest.mark.parametrize(
    ("place", "run"),
    [
        ("out/runs/Dec01_12-00-00_host", "out"),
        ("out/checkpoint-10/runs/Dec01_12-00-00_host", "out"),
        ("out/a/runs/Dec01_12-00-00_host", "a"),
        ("out/a/version_0", "a"),
        ("out/runs/b", "b"),
        ("out", "out"),
    ],
)
def test_the_folder_names_the_run(place: str, run: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("loragrid.external.reading.event_rows", lambda *_: [{"step": 1, "train/loss": 2.0}])
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / NAME).touch()
    assert list(read_external(tmp_path / "out").runs) == [run]
    if place == "out":
        assert list(read_external(tmp_path / place / NAME).runs) == [run]
