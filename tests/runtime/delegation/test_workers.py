"""A job done by a resident worker behaves like the one that Snakemake started, and leaves nothing for the next one."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loragrid.paths import SCRIPTS
from loragrid.runtime.delegation import fork_server, worker_pool
from loragrid.runtime.delegation.client import FORK_SERVER, WORKERS
from loragrid.runtime.delegation.fork_server import RESIDENT
from loragrid.runtime.delegation.pool_workers import Place, Worker
from loragrid.runtime.delegation.worker_pool import KINDS, WorkerPool
from loragrid.runtime.visible_gpus import VARIABLE
from tests.fixtures import delegated_jobs
from tests.fixtures.delegated_jobs import STAGE, child_of, is_alive, wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfd: no workers here")

# What is held is a file that is gone once it was let go of.
HOLDING = """
    from loragrid import errors
    from loragrid.runtime.delegation import residency
    from pathlib import Path
    held = Path(place + ".held")
    held.touch()
    residency.on_release(lambda: held.unlink(missing_ok=True))
    residency.until_next_job(type("Cache", (), {"cache_clear": staticmethod(Path(place + ".forgotten").touch)}))
    sys.modules["left_behind"] = sys.modules[__name__]
    os.environ["LEFT"] = "behind"
    if "--log" in sys.argv:
        errors._redirect(Path(place + ".log"))
        errors.print_line("both")
    open(place + ".card", "w").write(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    if "--retire" in sys.argv:
        residency.leave_after_job("a test")
"""
KIND_NAMES = {"plain": 0, "large": 1, "patched": 2}
# What the fork server would import for a stage. These tests need none of it.
LIBRARIES = {name.split(".")[0] for names in fork_server.LIBRARIES.values() for name in names}


@pytest.fixture(params=["spawned", "forked"])
def any_owner(request: pytest.FixtureRequest, owner, tmp_path: Path) -> tuple[Path, subprocess.Popen]:
    """As `owner`; for forked workers, the folder of a fork server."""
    if request.param == "forked":
        (owner[0] / "place" / RESIDENT).touch()
        for name in LIBRARIES:
            (tmp_path / "jobs" / f"{name}.py").write_text("raise ImportError")
    return owner


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen]]:
    """The folder of a pool of workers, and its owner process."""
    stage = STAGE.replace('    print("said"', '    assert "LEFT" not in os.environ\n' + HOLDING + '    print("said"')
    for name in ("train", "score"):
        (tmp_path / "jobs" / "stages").mkdir(parents=True, exist_ok=True)
        (tmp_path / "jobs" / "stages" / f"{name}.py").write_text(stage)
    folder = tmp_path / "jobs" / "stages"
    process = subprocess.Popen(["sleep", "600"])
    (folder / "place").mkdir()
    (folder / "place" / "owner").write_text(str(process.pid))
    kinds = [["plain", "plain", "b", False], ["plain", "plain", "c", True], ["unsloth", "unsloth b", "b", False]]
    (folder / "place" / KINDS).write_text(json.dumps({"kinds": kinds, "names": {"train": KIND_NAMES}}))
    yield folder, process
    process.kill()
    process.wait()


def start(folder: Path, what: str, place: Path, *more: str, run: str = "plain", **options: Any) -> subprocess.Popen:
    variable = FORK_SERVER if (folder / "place" / RESIDENT).exists() else WORKERS
    environment = {"PYTHONPATH": os.pathsep.join((str(SCRIPTS), str(folder.parent)))} | options.pop("environment", {})
    arguments = (what, place, "--run", run, *more)
    return delegated_jobs.start(folder, "train", *arguments, variable=variable, environment=environment, **options)


def finish(folder: Path, what: str, place: Path, *more: str, **options: Any) -> tuple[int, str, int]:
    """Exit status and stderr of a job, and the process that did it."""
    job = start(folder, what, place, *more, **options)
    _, said = job.communicate()
    return job.returncode, said, int(place.read_text().split()[0])


def test_the_next_job_finds_the_process_and_nothing_of_the_last_job(any_owner, tmp_path: Path) -> None:
    folder, _ = any_owner
    first = start(folder, "0", tmp_path / "a", "--log")
    _, said = first.communicate()
    child = child_of(tmp_path / "a")
    assert first.returncode == 0 and said == "both\n" and child != first.pid
    assert (tmp_path / "a.log").read_text() == "both\nsaid\n"
    status, said, again = finish(folder, "0", tmp_path / "b@0.5", cwd=tmp_path)
    assert (status, said, again) == (0, "said\n", child)
    _, cwd, _, group = (tmp_path / "b@0.5").read_text().split()
    assert (cwd, group) == (str(tmp_path), str(os.getpgrp()))
    assert (tmp_path / "a.held").exists() and is_alive(child)
    assert (tmp_path / "a.forgotten").exists(), "what was read from files is read again"


@pytest.mark.parametrize(("what", "status"), [("2", 2), ("bug", 1)])
def test_a_job_that_fails_ends_its_worker(any_owner, tmp_path: Path, what: str, status: int) -> None:
    folder, _ = any_owner
    found, said, failed = finish(folder, what, tmp_path / "a")
    assert found == status and said.startswith("said\n") and (what == "bug") == ("ValueError: a bug" in said)
    assert "During handling" not in said, "the server is not part of a job's traceback"
    wait_until(lambda: not is_alive(failed))
    assert finish(folder, "0", tmp_path / "b")[0] == 0 and child_of(tmp_path / "b") != failed


def test_signals_reach_the_work_and_a_killed_job_takes_its_worker_along(any_owner, tmp_path: Path) -> None:
    folder, process = any_owner
    jobs = [start(folder, "wait", tmp_path / name, process_group=0) for name in "abc"]
    workers = [child_of(tmp_path / name) for name in "abc"]
    assert len(set(workers)) == 3, "jobs at once have a worker each"
    jobs[0].kill()
    os.killpg(jobs[1].pid, signal.SIGKILL)
    for job, worker in zip(jobs[:2], workers[:2]):
        job.communicate()
        wait_until(lambda worker=worker: not is_alive(worker))
    assert is_alive(workers[2])
    time.sleep(0.2)  # until its handler is in place
    process.kill()
    process.wait()
    wait_until(lambda: not (folder / "place").exists())
    assert is_alive(workers[2]), "an orphan continues, as without the worker"
    status, _, late = finish(folder, "0", tmp_path / "late")
    assert status == 0 and late not in workers and not is_alive(late)
    jobs[2].send_signal(signal.SIGTERM)
    jobs[2].communicate()
    assert jobs[2].returncode == 75
    wait_until(lambda: not is_alive(workers[2]))


def test_workers_end_with_their_owner_and_a_killed_worker_is_a_killed_job(any_owner, tmp_path: Path) -> None:
    folder, process = any_owner
    _, _, idle = finish(folder, "0", tmp_path / "a")
    os.kill(idle, signal.SIGKILL)
    status, said, worker = finish(folder, "0", tmp_path / "b")
    assert (status, said) == (0, "said\n") and worker != idle
    job = start(folder, "wait", tmp_path / "c")
    wait_until(lambda: child_of(tmp_path / "c") == worker)
    os.kill(worker, signal.SIGKILL)
    job.communicate()
    assert job.returncode == -signal.SIGKILL
    _, _, idle = finish(folder, "0", tmp_path / "d")
    process.kill()
    process.wait()
    wait_until(lambda: not is_alive(idle))


def test_a_card_is_made_free_for_the_next_job(owner, tmp_path: Path) -> None:
    folder, _ = owner
    _, _, plain = finish(folder, "0", tmp_path / "a")
    _, _, patched = finish(folder, "0", tmp_path / "b", run="patched")
    assert patched != plain and is_alive(plain) and not (tmp_path / "a.held").exists(), "it has let go of its base"
    job = start(folder, "0", tmp_path / "c", run="unknown")
    job.communicate()
    assert child_of(tmp_path / "c") == job.pid and not (tmp_path / "b.held").exists(), "a job of unknown kind"
    _, _, large = finish(folder, "0", tmp_path / "d", run="large")
    assert large == plain and not is_alive(patched), "beside a job that needs the whole card nobody stays"
    _, _, retired = finish(folder, "0", tmp_path / "e", "--retire")
    assert retired == plain and finish(folder, "0", tmp_path / "f")[2] != plain


def test_changed_code_is_a_new_process(any_owner, tmp_path: Path) -> None:
    folder, _ = any_owner
    _, _, old = finish(folder, "0", tmp_path / "a")
    (folder / "helper.py").write_text("")
    assert finish(folder, "0", tmp_path / "b")[2] != old and not is_alive(old)


def test_two_cards_have_a_worker_each(owner, tmp_path: Path) -> None:
    folder, _ = owner
    environment = {VARIABLE: "3,5", "TMPDIR": str(tmp_path)}
    one = start(folder, "wait", tmp_path / "a", environment=environment)
    child_of(tmp_path / "a")
    _, _, other = finish(folder, "0", tmp_path / "b", environment=environment)
    assert [(tmp_path / f"{name}.card").read_text() for name in "ab"] == ["3", "5"]
    assert finish(folder, "0", tmp_path / "c", environment=environment)[2] == other
    one.kill()
    one.communicate()


def test_the_socket_is_there_only_when_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / KINDS).write_text("{}")
    listen, seen = socket.socket.listen, []
    monkeypatch.setattr(
        socket.socket, "listen", lambda listener: (seen.append((tmp_path / "socket").exists()), listen(listener))
    )
    pool = WorkerPool(tmp_path, os.getpid())
    assert seen == [False]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "socket"))
    pool.listener.close()


def test_a_worker_that_was_idle_for_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / KINDS).write_text("{}")
    pool = WorkerPool(tmp_path, os.getpid())
    assert pool.longest_wait() is None
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    pool.workers[ours.fileno()] = (Place(None, None), Worker(0, 0, None, ours, (), idle_since=time.monotonic()))
    assert 0 < pool.longest_wait() <= 1000 * worker_pool.IDLE_SECONDS + 1
    monkeypatch.setattr(worker_pool, "IDLE_SECONDS", 0.0)
    pool.longest_wait()
    assert theirs.recv(1) == b"", "the connection is closed"
