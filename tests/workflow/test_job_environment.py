import os
import time
from functools import partial
from pathlib import Path

import pytest

from loragrid.paths import SCRIPTS
from loragrid.runtime.delegation.client import FORK_SERVER
from loragrid.runtime.delegation.fork_server import RESIDENT
from loragrid.study.study_file import load_study
from loragrid.workflow.environment import job_environment, resume_message, start_fork_server
from tests.fixtures.studies import changed


def test_jobs_find_the_code_the_study_and_the_session_s_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    study = load_study("demo")
    found = job_environment(study, session_minutes=55, starts_session=True)
    assert found["PYTHONPATH"] == found["SCRIPTS"] == str(SCRIPTS) and found["STUDY"] == str(study.path)
    assert found["SESSION"] == "--session-minutes 55"
    assert found["MPLBACKEND"] == "Agg", "a notebook's kernel exports one of its own"
    assert found["PYTHONOPTIMIZE"] == "", "libraries check with asserts"
    ends = float(found["SESSION_ENDS"].removeprefix("--session-ends "))
    assert ends - time.monotonic() == pytest.approx(55 * 60, abs=5)


def test_jobs_keep_the_folders_of_the_user_s_pythonpath(monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study("demo")
    for given in (f"/opt/site{os.pathsep}", f"{SCRIPTS}{os.pathsep}/opt/site"):
        monkeypatch.setenv("PYTHONPATH", given)
        found = job_environment(study, session_minutes=None, starts_session=True)
        assert found["PYTHONPATH"] == f"{SCRIPTS}{os.pathsep}/opt/site"


def test_a_process_that_runs_a_job_for_its_parent_keeps_the_parent_s_end() -> None:
    assert "SESSION_ENDS" not in job_environment(load_study("demo"), session_minutes=55, starts_session=False)


def test_without_a_session_length_there_are_no_options() -> None:
    found = job_environment(load_study("demo"), session_minutes=None, starts_session=True)
    assert found["SESSION"] == found["SESSION_ENDS"] == ""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfd: jobs never share an interpreter here")
def test_jobs_share_an_interpreter_only_where_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study("demo")
    monkeypatch.delenv(FORK_SERVER, raising=False)
    start = partial(start_fork_server, resident=True)
    start(study, local=True)
    folder = Path(os.environ[FORK_SERVER])
    assert (folder / "owner").read_text() == str(os.getpid()) and (folder / RESIDENT).exists()
    start(study, local=True)
    assert os.environ[FORK_SERVER] == str(folder), "a named folder stays"
    start(changed(study, base_case__threads=2), local=True)
    assert FORK_SERVER not in os.environ
    for other in (changed(study, base_case__backend="unsloth"), changed(study, scoring__threads=2)):
        start(other, local=True)
        assert FORK_SERVER not in os.environ
    start(study, local=False)
    assert FORK_SERVER not in os.environ
    start_fork_server(study, local=True, resident=False)
    assert not Path(os.environ[FORK_SERVER], RESIDENT).exists(), "a process for each job"
    monkeypatch.setattr("loragrid.workflow.environment.visible_gpu", lambda: "a GPU")
    start(study, local=True)
    assert FORK_SERVER not in os.environ, "a process forked after CUDA was initialised cannot use it"


def test_the_resume_message_names_the_study_and_the_directory(tmp_path: Path) -> None:
    (tmp_path / "score" / "a").mkdir(parents=True)
    (tmp_path / "score" / "a" / "score.json").touch()
    message = resume_message("t4", results=tmp_path, since=0, directory="/my work")
    assert "--directory '/my work' --config study=t4 partial=true" in message
    assert "run the same command to continue" in message


def test_the_resume_message_ends_with_the_error_of_this_call(tmp_path: Path) -> None:
    logs = tmp_path / "logs" / "train"
    logs.mkdir(parents=True)
    (logs / "old.log").write_text("error: an old one\n")
    os.utime(logs / "old.log", (1, 1))
    (logs / "a.log").write_text("much\nerror: rank: too large (0). Fix: lower it.\nsome library says goodbye\n")
    (logs / "b.log").write_text("error: rank: too large (0). Fix: lower it.\n")
    message = resume_message("t4", results=tmp_path, since=1000, directory=None).splitlines()
    assert message[0].endswith("correct it, then run the same command.")
    assert message[1:] == ["error: rank: too large (0). Fix: lower it."]


def test_after_a_pause_the_message_says_how_to_continue(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    paused = "run a paused at step 3 of 9 (session over), run the same command to go on"
    (tmp_path / "logs" / "a.log").write_text(f"{paused}\n")
    message = resume_message("t4", results=tmp_path, since=0, directory=None)
    assert "run the same command to continue" in message and message.splitlines()[-1] == paused
    assert "partial=true" not in message
