"""Interrupted scoring: killed, paused at the session's end, and continued with changed settings or damaged files."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import score
from loragrid.errors import Paused, run_main
from loragrid.scoring.loaded_model import LoadedModel
from loragrid.scoring.running_task import KeptAnswers
from tests.fixtures.score_toys import as_run, contents


def test_a_killed_job_continues_with_the_next_task(study, data, runs, scored_alone, tmp_path, monkeypatch):
    subject = as_run(runs[0], data, tmp_path)
    scored, run = [], LoadedModel.score

    def dying(self, task, running):
        scored.append(task.name)
        if scored == ["answer", "choice"]:
            raise KeyboardInterrupt  # like a kill, this is not an Exception, so nothing catches it
        return run(self, task, running)

    monkeypatch.setattr(LoadedModel, "score", dying)
    with pytest.raises(KeyboardInterrupt):
        score.score_subjects(study=study, subjects=[subject])
    assert not (tmp_path / "score.json").exists()
    score.score_subjects(study=study, subjects=[subject])
    assert scored == ["answer", "choice", "choice"]
    assert contents(tmp_path) == contents(scored_alone[1].out)
    score.score_subjects(study=study, subjects=[subject])
    assert len(scored) == 3  # nothing left to score, nothing loaded


def test_a_full_disk_is_one_line_and_no_failed_task(study, data, runs, scored_alone, small_disk, monkeypatch, capsys):
    """It is met inside of a task, whose failures are recorded otherwise; with room again the job continues."""
    subject, ballast = as_run(runs[0], data, small_disk / "scored"), small_disk / "ballast"
    add, size = KeptAnswers.add, []

    def on_a_full_disk(self, request, tokens):
        if not size:
            with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
                while True:
                    size.append(file.write(bytes(4096)))
        add(self, request, tokens)

    monkeypatch.setattr(KeptAnswers, "add", on_a_full_disk)
    with pytest.raises(SystemExit) as end:
        run_main(lambda: score.score_subjects(study=study, subjects=[subject]))
    said = capsys.readouterr().err.splitlines()
    (line,) = [line for line in said if line.startswith("failed: ")]
    assert end.value.code == 1 and f"{small_disk}/scored: the disk is full (No space left on device" in line
    assert "0 MiB free). Fix: free space there (results of other studies" in line
    assert not (subject.out / "score.json").exists()
    ballast.unlink()
    score.score_subjects(study=study, subjects=[subject])
    assert contents(subject.out) == contents(scored_alone[1].out)


@pytest.fixture
def interrupt_after(monkeypatch):
    """Make Ctrl-C come after so many answers; returns the requests that are answered, before and afterwards."""

    def interrupt_after(count):
        written, add = [], KeptAnswers.add

        def and_note(self, request, tokens):
            add(self, request, tokens)
            written.append(request)
            if len(written) == count:
                raise KeyboardInterrupt

        monkeypatch.setattr(KeptAnswers, "add", and_note)
        return written

    return interrupt_after


def test_an_interrupted_generation_continues_with_the_next_answer(
    study, data, runs, scored_alone, tmp_path, interrupt_after
):
    subject, kept = as_run(runs[0], data, tmp_path), tmp_path / "tasks" / "answer.answers"
    written = interrupt_after(4)
    with pytest.raises(KeyboardInterrupt):
        score.score_subjects(study=study, subjects=[subject])
    assert len(kept.read_text().strip().splitlines()) == 4 and not (tmp_path / "tasks" / "answer.json").exists()
    score.score_subjects(study=study, subjects=[subject])
    # Six answers of the task and two of the prompt, each written once.
    assert len(written) == 8 == len({str(request) for request in written})
    assert contents(tmp_path) == contents(scored_alone[1].out)
    assert not list((tmp_path / "tasks").glob("*.answers"))


def test_answers_that_were_kept_for_other_items_are_not_used(study, data, runs, tmp_path, interrupt_after):
    subject, written = as_run(runs[0], data, tmp_path), interrupt_after(2)
    with pytest.raises(KeyboardInterrupt):
        score.score_subjects(study=study, subjects=[subject])
    limited = replace(study, yaml=study.yaml | {"scoring": study.yaml["scoring"] | {"limit": 3}})
    score.score_subjects(study=limited, subjects=[subject])
    assert len(written) == 2 + 3 + 2


def test_scoring_pauses_between_tasks_at_the_end_of_a_session(study, data, runs, scored_alone, tmp_path, monkeypatch):
    """Finished tasks are kept, a job that starts too late loads no base, and the next session scores the rest."""
    subject, now = as_run(runs[0], data, tmp_path), [time.monotonic()]

    def long(run):
        def run_long(self, asked, running):
            result = run(self, asked, running)
            now[0] += 60
            return result

        return run_long

    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now[0])
        for name in ("score", "heldout_losses"):
            patch.setattr(LoadedModel, name, long(getattr(LoadedModel, name)))
        with pytest.raises(Paused, match=r"paused before choice .* run the same command to go on"):
            score.score_subjects(study=study, subjects=[subject], session_ends=now[0] + 170)
    assert (tmp_path / "tasks/heldout_loss.json").exists() and not (tmp_path / "score.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "load", lambda self: pytest.fail("the base was loaded"))
        with pytest.raises(Paused, match="paused before choice"):
            score.score_subjects(study=study, subjects=[subject], session_ends=time.monotonic())
    score.score_subjects(study=study, subjects=[subject], session_ends=time.monotonic() + 600)
    assert contents(tmp_path) == contents(scored_alone[1].out)


@pytest.mark.usefixtures("warm")
def test_sigkill_in_the_middle_loses_one_task_of_one_subject(study, data, runs, scored_alone, tmp_path, root):
    """Jobs of a base share a process, as in the workflow, and score as jobs with one each."""

    def start(name: str, *more: str | Path) -> subprocess.Popen:
        command = [sys.executable, root / "scripts" / "score.py", "--study", study.path, "--subject", name]
        paths = ["--data", data, "--out", tmp_path / name, *more]
        return subprocess.Popen([*command, *paths], stderr=subprocess.DEVNULL)

    base, (run, trained) = scored_alone[0], runs[0]
    assert start(base.name).wait() == 0
    job, first = start(run, "--trained", trained), tmp_path / run / "tasks" / "answer.json"
    while not first.exists() and job.poll() is None:
        time.sleep(0.001)
    job.kill()
    assert job.wait() == -signal.SIGKILL
    assert not (tmp_path / run / "score.json").exists()
    before = first.stat().st_mtime_ns
    assert start(run, "--trained", trained).wait() == 0
    assert first.stat().st_mtime_ns == before
    for alone in scored_alone[:2]:
        assert contents(tmp_path / alone.name) == contents(alone.out)


def test_tasks_kept_for_other_settings_or_damaged_are_scored_again(study, data, runs, tmp_path, monkeypatch):
    subject = as_run(runs[0], data, tmp_path)
    score.score_subjects(study=study, subjects=[subject])
    scored, run = [], LoadedModel.score

    def noting(self, task, running):
        scored.append(task.name)
        return run(self, task, running)

    monkeypatch.setattr(LoadedModel, "score", noting)
    table, result = tmp_path / "tasks" / "choice.parquet", tmp_path / "tasks" / "choice.json"
    before = result.read_text()
    table.write_bytes(table.read_bytes()[:-7])
    score.score_subjects(study=study, subjects=[subject])
    assert scored == ["choice"]
    kept = json.loads(before)
    kept["score"]["items"] += 1
    result.write_text(json.dumps(kept))
    score.score_subjects(study=study, subjects=[subject])
    assert [scored.pop(), *scored] == ["choice", "choice"], "an edited result is no result"
    assert json.loads(result.read_text())["score"]["items"] == json.loads(before)["score"]["items"]
    limited = replace(study, yaml=study.yaml | {"scoring": study.yaml["scoring"] | {"limit": 3}})
    score.score_subjects(study=limited, subjects=[subject])
    assert scored[1:] == ["answer", "choice"]
