"""Jobs of one machine take different GPUs, and a killed job's GPU is free again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.runtime import gpu_locks
from loragrid.runtime.gpu_locks import take_gpus, take_one_gpu

JOB = """
import sys
from pathlib import Path
from loragrid.runtime.gpu_locks import take_one_gpu
print(take_one_gpu(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def start(folder: Path, *, visible: str = "0,1") -> tuple[subprocess.Popen, str]:
    """A job that runs until its input ends, and the card that it took."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": visible}
    job = subprocess.Popen([sys.executable, "-c", JOB, str(folder)], env=environment, **pipes)
    return job, job.stdout.readline().strip()


def test_jobs_spread_over_the_cards_and_a_killed_one_leaves_its_own(tmp_path: Path) -> None:
    jobs = [start(tmp_path) for _ in range(3)]
    try:
        # The third shares a card, as a limit of GPU memory allows.
        assert [card for _, card in jobs] == ["0", "1", "0"]
        jobs[1][0].send_signal(signal.SIGKILL)
        jobs[1][0].wait()
        jobs.append(start(tmp_path))
        assert jobs[3][1] == "1"
        jobs[3][0].communicate()
        jobs.append(start(tmp_path, visible="1,0"))
        assert jobs[4][1] == "1"
    finally:
        for job, _ in jobs:
            job.kill()
            job.communicate()


def test_with_one_card_or_none_nothing_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for visible in ("", "0", "GPU-7"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert take_one_gpu(tmp_path) is None and os.environ["CUDA_VISIBLE_DEVICES"] == visible
    assert not list(tmp_path.iterdir())


def test_the_job_sees_its_card_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(gpu_locks, "_held", held := [])
    assert take_one_gpu() == "GPU-a" == os.environ["CUDA_VISIBLE_DEVICES"]
    assert (tmp_path / f"loragrid-gpus-{os.getuid()}").stat().st_mode & 0o077 == 0
    os.close(held.pop())


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    with pytest.raises(UserError, match="belongs to another user"):
        take_one_gpu(tmp_path)


def test_a_run_on_several_cards_takes_the_ones_with_the_fewest_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, card = start(tmp_path, visible="0,1,2")
    try:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
        assert card == "0" and take_gpus(2, tmp_path) == ("1", "2") and os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"
        with pytest.raises(
            UserError, match=r"training\.gpus: 3 asked for and 2 visible .* Fix: set training\.gpus to 2"
        ):
            take_gpus(3, tmp_path)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert take_gpus(3, tmp_path) == ()
    finally:
        job.kill()
        job.communicate()
