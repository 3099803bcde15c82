"""vLLM's engine in a resident worker: one for the score jobs of a base, and nothing of it is left behind."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

import score
from loragrid.models.base_cache import held_base, release_base
from loragrid.runtime.delegation import residency
from loragrid.runtime.delegation.client import WORKERS
from loragrid.runtime.delegation.worker_pool import KINDS
from loragrid.scoring.vllm_engine import process
from loragrid.scoring.vllm_engine.held_engine import EngineModel, give_back, release_engine, take_engine
from loragrid.scoring.vllm_engine.served_adapters import ServedAdapters, planned_adapters
from loragrid.study.study_file import Study
from tests.fixtures import delegated_jobs
from tests.fixtures.delegated_jobs import is_alive, wait_until
from tests.fixtures.score_toys import metrics
from tests.fixtures.studies import changed
from tests.fixtures.vllm_engine import engine_starts, make_interpreter

# Answers everything with {}, and starts a process that does not end with it.
ENGINE = """#!/bin/sh
if [ "$2" = --versions ]; then echo '{"vllm": "1"}'; exit; fi
sleep 300 > /dev/null 2>&1 &
echo $$ $! >> "$(dirname "$0")/started"
while read line; do echo '{}'; done
"""
STAGE = """
import os, sys, time
from pathlib import Path
from loragrid.runtime.delegation.client import delegate_job
if __name__ == "__main__":
    delegate_job()
    if sys.argv[1] != "train":
        from loragrid.scoring.vllm_engine import held_engine
        model = held_engine.EngineModel(Path(__file__).parent, "float32", 8)
        engine = held_engine.take_engine(model, held_engine.ServedAdapters())
    Path(sys.argv[2]).write_text(str(os.getpid()))
    time.sleep(60 if sys.argv[1] == "wait" else 0)
    if sys.argv[1] != "train":
        held_engine.give_back(engine)
"""


@pytest.fixture
def resident(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes this process a resident worker."""
    monkeypatch.setattr(residency, "_resident", True)
    monkeypatch.setattr(residency, "_kept", {})
    yield
    release_engine()
    release_base()


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file with the process ids of each engine that was started, and of the process beside it."""
    engine = tmp_path / "python"
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    monkeypatch.setenv(process.VARIABLE, str(engine))
    (tmp_path / "started").touch()
    process._versions.cache_clear()
    yield tmp_path / "started"
    process._versions.cache_clear()


def engines(started: Path) -> list[list[int]]:
    return [[int(number) for number in line.split()] for line in started.read_text().splitlines()]


def is_running(process_id: int) -> bool:
    """False for a zombie too, which nobody may have waited for."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def running(started: Path) -> list[bool]:
    """Whether any process of each engine runs."""
    return [any(map(is_running, one)) for one in engines(started)]


def test_the_score_jobs_of_a_worker_share_an_engine_and_score_as_before(
    study: Study, scored_alone: list, resident: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = make_interpreter(tmp_path / "vllm")
    monkeypatch.setenv(process.VARIABLE, str(python))
    served = changed(study, scoring__engine="vllm")
    for number, alone in enumerate((*scored_alone, scored_alone[1])):
        subject = score.Subject(alone.name, alone.trained, alone.data, tmp_path / str(number))
        score.score_subjects(study=served, subjects=[subject])
        residency.forget_results()
        ours, theirs = (pandas.read_parquet(one.out / "items.parquet") for one in (subject, alone))
        assert ours.drop(columns="value").equals(theirs.drop(columns="value"))
        assert ours.value.to_numpy() == pytest.approx(theirs.value.to_numpy(), abs=1e-5)
    assert metrics(tmp_path / "1") == metrics(tmp_path / "3") != metrics(tmp_path / "2")
    assert engine_starts(python) == 1, "the base's engine serves the runs, whose adapters it reads when they come"


def test_an_engine_is_held_for_what_it_can_serve(started: Path, toy_llama: Path, resident: None) -> None:
    model, other = EngineModel(toy_llama, "float32", 64), EngineModel(toy_llama, "float32", 32)
    small, large = ServedAdapters(8, frozenset({"q_proj"})), ServedAdapters(16, frozenset({"v_proj"}))
    first = take_engine(model, small)
    give_back(first)
    assert take_engine(model, ServedAdapters()) is first and running(started) == [True]
    second = take_engine(model, large)
    assert (second.served.rank, second.served.modules) == (16, {"q_proj", "v_proj"}), "serves both from now on"
    assert take_engine(model, small) is second and running(started) == [False, True]
    third = take_engine(other, small)
    assert third.served == small and running(started) == [False, False, True]
    os.kill(engines(started)[-1][0], 9)
    wait_until(lambda: not third.process.runs)
    assert take_engine(other, small) is not third and running(started) == [False, False, False, True]


def test_a_base_in_memory_and_an_engine_are_not_held_at_once(
    study: Study, started: Path, toy_llama: Path, resident: None
) -> None:
    give_back(take_engine(EngineModel(toy_llama, "float32", 64), ServedAdapters()))
    held_base(study.base_entry(study.cells[0]), device="cpu")
    assert running(started) == [False]


def test_other_processes_hold_no_engine(started: Path, toy_llama: Path) -> None:
    engine = take_engine(EngineModel(toy_llama, "float32", 64), ServedAdapters())
    assert running(started) == [True]
    give_back(engine)
    assert running(started) == [False]


def test_an_adapter_that_was_written_again_has_a_new_number(
    started: Path, toy_llama: Path, resident: None, tmp_path: Path
) -> None:
    engine = take_engine(EngineModel(toy_llama, "float32", 64), ServedAdapters())
    (tmp_path / "adapter").mkdir()
    numbers = []
    for content in ("{}", "{}", "{ }"):
        if not numbers or content != "{}":
            (tmp_path / "adapter" / "adapter_config.json").write_text(content)
        numbers.append(engine.request(tmp_path / "adapter")[0])
    assert numbers == [1, 1, 2] and engine.request(None) is None


def test_the_engine_of_a_study_is_made_for_all_of_its_runs(study: Study) -> None:
    cell = study.cells[0]
    entry = study.base_entry(cell)
    names = {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}
    rank = cell.settings.rank
    assert planned_adapters(study, entry, cell.model) == ServedAdapters(rank, frozenset(names))
    assert planned_adapters(study, entry, "another model") == ServedAdapters()
    half = changed(study, scoring__precision="16bit")
    assert planned_adapters(half, half.scored_entry(cell), cell.model).rank == rank

    def planned(**base_case: Any) -> ServedAdapters:
        return planned_adapters(
            changed(study, **{f"base_case__{key}": value for key, value in base_case.items()}), entry, cell.model
        )

    assert planned(method="pissa").rank == 2 * rank
    assert planned(target_modules=["q_proj", "lm_head"]) == ServedAdapters(), "its own job refuses it"
    assert planned(method="full", rank=None) == ServedAdapters()


@pytest.fixture
def owner(tmp_path: Path, started: Path) -> Iterator[tuple[Path, subprocess.Popen]]:
    """The folder of a pool whose score jobs take an engine and whose train jobs do not, and its owner process."""
    folder = tmp_path / "stages"
    (folder / "place").mkdir(parents=True)
    for name in ("train", "score"):
        (folder / f"{name}.py").write_text(STAGE)
    owner = subprocess.Popen(["sleep", "600"])
    (folder / "place" / "owner").write_text(str(owner.pid))
    kinds = [["vllm", "vllm", "b", False], ["plain", "plain", "b", False]]
    names = {"score": {"a": 0}, "train": {"a": 1}}
    (folder / "place" / KINDS).write_text(json.dumps({"kinds": kinds, "names": names}))
    yield folder, owner
    owner.kill()
    owner.wait()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfd: no workers here")
def test_an_engine_ends_for_a_train_job_with_a_killed_job_and_with_its_owner(
    owner: tuple[Path, subprocess.Popen], started: Path, tmp_path: Path
) -> None:
    folder, snakemake = owner

    def start(stage: str, what: str) -> subprocess.Popen:
        (tmp_path / "worker").unlink(missing_ok=True)
        option = "--run" if stage == "train" else "--subject"
        return delegated_jobs.start(folder, stage, what, tmp_path / "worker", option, "a", variable=WORKERS)

    def finish(stage: str) -> int:
        job = start(stage, stage)
        _, said = job.communicate()
        assert job.returncode == 0, said
        return int((tmp_path / "worker").read_text())

    worker = finish("score")
    assert finish("score") == worker and running(started) == [True]
    finish("train")
    assert running(started) == [False] and is_alive(worker), "its libraries stay imported"
    killed = start("score", "wait")
    wait_until((tmp_path / "worker").exists)
    assert running(started) == [False, True]
    killed.kill()
    killed.communicate()
    wait_until(lambda: not any(running(started)) and not is_alive(worker))
    worker = finish("score")
    assert running(started)[-1]
    snakemake.kill()
    snakemake.wait()
    wait_until(lambda: not any(running(started)) and not is_alive(worker))
