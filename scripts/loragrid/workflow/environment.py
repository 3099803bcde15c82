"""The environment of a study's jobs: where they find the code, the study and the session's end, and
the fork server."""

import atexit
import os
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

from loragrid.paths import SCRIPTS
from loragrid.records.failures import FAILURE_LINES, log_tail, logged_failure
from loragrid.runtime.delegation.client import FORK_SERVER
from loragrid.runtime.delegation.fork_server import RESIDENT
from loragrid.runtime.visible_gpus import visible_gpu
from loragrid.study.study_file import Study


def job_environment(study: Study, *, session_minutes: float | None, starts_session: bool) -> dict[str, str]:
    """Environment variables of all jobs of one call of Snakemake.

    They are not params of the rules: another checkout, another spelling of the study file's path or another
    session length would run everything again. `starts_session`: whether this process begins the
    session. A cluster's job is a session of its own on another machine, where Snakemake reads the
    workflow again; a process that runs one job for its parent keeps the parent's end.
    """
    # This checkout comes before an installed one; the folders of the user stay, since cluster modules
    # provide packages that way. Snakemake removes PYTHONPATH from jobs of --sdm conda, which find
    # the package beside their script.
    user_folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    search_path = os.pathsep.join((str(Path(sys.executable).parent), *os.get_exec_path()))
    variables = {
        "SCRIPTS": str(SCRIPTS),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(SCRIPTS), *user_folders])),
        "STUDY": str(study.path),
        "PATH": search_path,
        # A notebook's kernel exports a backend that this environment cannot import.
        "MPLBACKEND": "Agg",
        # Python would leave out docstrings and the checks that libraries write as asserts.
        "PYTHONOPTIMIZE": "",
        "BACKUP": study.backup or "",
        "SESSION": f"--session-minutes {session_minutes}" if session_minutes else "",
    }
    if starts_session:
        ends = f"--session-ends {time.monotonic() + 60 * session_minutes}" if session_minutes else ""
        variables["SESSION_ENDS"] = ends
    return variables


def start_fork_server(study: Study, *, local: bool, resident: bool) -> None:
    """Name the folder where the first job starts the interpreter that the others are forked from,
    if jobs can share one; the forked processes are `resident` workers or do one job each.

    They can if they run here, in one thread each (the number is fixed when torch is imported), on
    no GPU (importing peft initialises CUDA, and a process forked afterwards cannot use it) and not
    by unsloth, which must be imported before the other libraries. A folder that the caller named
    stays: it calls Snakemake several times.
    """
    settings = [cell.settings for cell in study.cells]
    forkable = all(run.backend != "unsloth" for run in settings) and visible_gpu() is None
    single_threaded = study.scoring.threads == 1 and all(run.threads == 1 for run in settings)
    if not (local and forkable and single_threaded and hasattr(os, "pidfd_open")):
        os.environ.pop(FORK_SERVER, None)
        return
    if FORK_SERVER in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="loragrid-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Path(folder, "owner").write_text(str(os.getpid()))
    if resident:
        Path(folder, RESIDENT).touch()
    os.environ[FORK_SERVER] = folder


# What the line of a paused job has in it.
PAUSES = ("run the same command to go on", "already being trained")


def resume_message(study: str, *, results: Path, since: float, directory: str | Path | None) -> str:
    """What to type after a stop, for users who do not know Snakemake; the last lines of the jobs that ended it.

    `study` and `directory`: as given on the command line; `since`: when this call of Snakemake
    began, seconds of the Unix clock.
    """
    ended = last_lines(results / "logs", since=since)
    advice = "run the same command to continue (after a hard kill, first `snakemake --unlock`)"
    if any(line.startswith(FAILURE_LINES) for line in ended):
        advice = "correct it, then run the same command"
    lines = [f"loragrid: the study is not finished. Finished work is kept: {advice}."]
    if any(results.glob("score/*/score.json")):
        where = f" --directory {shlex.quote(str(directory))}" if directory else ""
        options = f"--config {shlex.quote(f'study={study}')} partial=true"
        lines.append(f"A report of what is finished: snakemake --cores 1{where} {options}")
    # Other jobs may have gone on for hours since then.
    return "\n".join([*lines, *ended])


def last_lines(logs: Path, *, since: float) -> list[str]:
    """The lines with which jobs failed or paused, by the logs that were written `since` then, each line once."""
    found = []
    for log in sorted(logs.rglob("*.log")):
        # Some network drives have a clock of their own, or whole seconds.
        if log.stat().st_mtime < since - 2:
            continue
        pauses = [line for line in log_tail(log) if any(mark in line for mark in PAUSES)]
        failure = logged_failure(log)
        found += [failure] if failure else pauses[-1:]
    return list(dict.fromkeys(found))
