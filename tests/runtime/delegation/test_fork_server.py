"""A job run by the fork server behaves like the one that Snakemake started: output, exit status, signals, death."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loragrid.runtime.delegation.client import FORK_SERVER
from tests.fixtures import delegated_jobs
from tests.fixtures.delegated_jobs import STAGE, child_of, is_alive, wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfd: jobs are never warm here")


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen]]:
    """The folder of a fork server, and its owner process."""
    folder = tmp_path_factory.mktemp("warm")
    (folder / "prepare_data.py").write_text(STAGE)
    process = subprocess.Popen(["sleep", "600"])
    (folder / "place").mkdir()
    (folder / "place" / "owner").write_text(str(process.pid))
    yield folder, process
    process.kill()
    process.wait()


def start(folder: Path, what: str, place: Path, **options: Any) -> subprocess.Popen:
    return delegated_jobs.start(folder, "prepare_data", what, place, variable=FORK_SERVER, **options)


def test_end_words_and_surroundings_are_the_jobs(owner, tmp_path: Path) -> None:
    folder, _ = owner
    for what, status in (("0", 0), ("2", 2), ("75", 75), ("bug", 1)):
        job = start(folder, what, tmp_path / what, cwd=tmp_path)
        _, said = job.communicate()
        assert (
            job.returncode == status and said.startswith("said\n") and (what == "bug") == ("ValueError: a bug" in said)
        )
        child, cwd, warm, group = (tmp_path / what).read_text().split()
        assert int(child) != job.pid and (cwd, warm, group) == (str(tmp_path), "True", str(os.getpgrp()))


def test_two_jobs_at_once_end_each_for_itself(owner, tmp_path: Path) -> None:
    folder, _ = owner
    jobs = [start(folder, "wait", tmp_path / name) for name in "ab"]
    childs = [child_of(tmp_path / name) for name in "ab"]
    jobs[0].kill()
    jobs[0].wait()
    wait_until(lambda: not is_alive(childs[0]))  # killed with its job
    assert is_alive(childs[1])
    time.sleep(0.2)  # until its handler is in place
    jobs[1].send_signal(signal.SIGTERM)
    jobs[1].communicate()
    assert jobs[1].returncode == 75 and not is_alive(childs[1])


def test_a_killed_child_is_a_killed_job(owner, tmp_path: Path) -> None:
    job = start(owner[0], "wait", tmp_path / "a")
    os.kill(child_of(tmp_path / "a"), signal.SIGKILL)
    job.communicate()
    assert job.returncode == -signal.SIGKILL


def test_killed_with_its_group(owner, tmp_path: Path) -> None:
    job = start(owner[0], "wait", tmp_path / "a", process_group=0)
    child = child_of(tmp_path / "a")
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()
    wait_until(lambda: not is_alive(child))
    assert job.returncode == -signal.SIGKILL


def test_goes_with_its_owner_and_jobs_then_run_by_themselves(owner, tmp_path: Path) -> None:
    folder, process = owner
    job = start(folder, "wait", tmp_path / "a")
    child = child_of(tmp_path / "a")
    process.kill()
    process.wait()
    wait_until(lambda: not (folder / "place").exists())
    assert is_alive(child)  # an orphan continues, as without the server
    late = start(folder, "0", tmp_path / "b")
    late.communicate()
    assert late.returncode == 0 and int((tmp_path / "b").read_text().split()[0]) == late.pid
    job.kill()
    job.communicate()
    wait_until(lambda: not is_alive(child))


def test_a_server_that_finds_a_gpu_forks_nothing(tmp_path: Path) -> None:
    """Whatever the workflow knew of the machine: importing the libraries has initialised CUDA."""
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "torch.py").write_text("class cuda:\n    is_available = staticmethod(lambda: True)\n")
    (libraries / "transformers.py").write_text("import torch\n")
    (tmp_path / "prepare_data.py").write_text(STAGE)
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "owner").write_text(str(os.getpid()))
    path = os.pathsep.join((str(libraries), os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, str(tmp_path / "prepare_data.py"), "0", str(tmp_path / "job")]
    environment = os.environ | {FORK_SERVER: str(tmp_path / "place"), "PYTHONPATH": path}
    for _ in range(2):
        job = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        _, said = job.communicate()
        assert job.returncode == 0 and said == "said\n"
        assert int((tmp_path / "job").read_text().split()[0]) == job.pid
    assert (tmp_path / "place" / "socket").exists(), "the server was there and was asked"
