"""Which jobs of a study share a resident worker, and where there are workers at all."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from loragrid.runtime.delegation.client import FORK_SERVER, WORKERS
from loragrid.runtime.delegation.worker_pool import KINDS
from loragrid.runtime.visible_gpus import Gpu
from loragrid.study.study_file import load_study
from loragrid.workflow import resident_workers
from loragrid.workflow.jobs import Jobs
from loragrid.workflow.resident_workers import job_kinds, start_workers
from tests.fixtures.studies import changed

T4 = Gpu("GPU-0", "Tesla T4", 14913, "580.1")


def jobs_of(study: str) -> Jobs:
    return Jobs(load_study(study), results="results/none", session_minutes=None)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfd: no workers here")
def test_workers_are_where_no_fork_server_has_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(WORKERS, "of another call")
    monkeypatch.delenv(FORK_SERVER, raising=False)
    jobs = jobs_of("demo")
    for gpu, warm, wanted, there in (
        *((None, True, None, True), (None, True, False, False), (None, False, None, False), (None, False, True, True)),
        *((T4, False, None, True), (T4, True, False, False)),
    ):
        monkeypatch.setattr(resident_workers, "visible_gpu", lambda gpu=gpu: gpu)
        start_workers(jobs, local=True, warm=warm, wanted=wanted)
        assert (WORKERS in os.environ) == there, (gpu, warm, wanted)
    start = partial(start_workers, jobs, warm=True)
    monkeypatch.setenv(FORK_SERVER, "somewhere")
    start(local=True, wanted=True)
    assert WORKERS not in os.environ
    monkeypatch.delenv(FORK_SERVER)
    start(local=True, wanted=True)
    folder = Path(os.environ[WORKERS])
    assert (folder / "owner").read_text() == str(os.getpid())
    assert json.loads((folder / KINDS).read_text())["names"]["train"].keys() == {cell.run for cell in jobs.study.cells}
    start(local=False, wanted=None)
    assert WORKERS not in os.environ and capsys.readouterr().err == ""
    start(local=False, wanted=True)
    assert "worker=true is only for jobs on this machine" in capsys.readouterr().err
    monkeypatch.delenv(WORKERS, raising=False)


def test_runs_of_unsloth_have_workers_of_their_own_and_large_jobs_the_card() -> None:
    jobs = jobs_of("t4")
    run, other = jobs.study.cells[0], next(cell for cell in jobs.study.cells if cell.model == "gemma-270m")
    found = job_kinds(jobs, T4)

    def kind(stage: str, name: str) -> list:
        return list(found["kinds"][found["names"][stage][name]])

    assert kind("train", run.run)[:3] == ["unsloth", "unsloth llama-1b 4bit auto 2048", "llama-1b 4bit"]
    assert kind("score", run.run) == kind("score", run.base) == ["plain", "plain", "llama-1b 4bit", False]
    assert kind("train", other.run)[1] != kind("train", run.run)[1]
    assert job_kinds(jobs, replace(T4, memory_mib=4000))["kinds"][0][3], "no room for another process"
    jobs.study = changed(jobs.study, scoring__engine="vllm")
    found, small = job_kinds(jobs, T4), job_kinds(jobs, replace(T4, memory_mib=8000))
    assert kind("score", run.run) == kind("score", run.base) == ["vllm", "vllm", "llama-1b 4bit", False]
    assert small["kinds"][small["names"]["score"][run.run]][3], "no room for an idle worker beside the engine"
    plain = job_kinds(jobs, None)["kinds"]
    assert {tuple(one[:2]) for one in plain} == {("plain", "plain"), ("vllm", "vllm")}, "on a CPU auto is trl"


def test_runs_with_ligers_kernels_have_a_worker_of_their_own() -> None:
    study = changed(load_study("t4_short"), base_case__backend="trl", training__liger_kernels=True)
    found = job_kinds(Jobs(study, results="results/none", session_minutes=None), T4)
    run = study.cells[0]
    train, score = (found["kinds"][found["names"][stage][run.run]] for stage in ("train", "score"))
    assert train[:2] == ("liger", "liger") and score[:2] == ("plain", "plain") and train[2] == score[2]
