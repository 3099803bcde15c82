# What all rules share: the study, its jobs and their environment. Everything that needs no object of Snakemake is a function
# of the package (scripts/loragrid/workflow/) with a test.
import atexit
import gc
import os
import shlex
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod, ExecMode

# Planning makes millions of objects that live until the end; by default Python's collector looks through all of them again and
# again. A dry run of 10,000 cells takes 39 s of CPU time with this line and 48 s without.
gc.set_threshold(50_000, 20, 100)

STARTED = time.time()
CHECKOUT = Path(workflow.basedir).resolve().parent  # Snakemake keeps the symbolic links of --snakefile
try:
    from loragrid import paths
except ModuleNotFoundError:
    paths = None
if paths is None or paths.ROOT != CHECKOUT:
    found = "is not installed" if paths is None else f"comes from {paths.ROOT}"
    fix = f"python -m pip install --no-deps -e {shlex.quote(str(CHECKOUT))}"
    environment = CHECKOUT / ".venv" / "bin" / "activate"
    if paths is None and environment.is_file():
        fix = f"source {shlex.quote(str(environment))}"
    print(f"error: the package loragrid {found}. Fix: {fix}", file=sys.stderr)
    raise SystemExit(2)

from loragrid.comparing.literature.findings import LITERATURE, rules_digest
from loragrid.errors import DISPLAY, UserError, error_lines
from loragrid.planning.forecast import device_warnings
from loragrid.planning.gpu_cards import planned_device
from loragrid.runtime.atomic_files import check_writable, sha256_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.session import session_seconds
from loragrid.study.study_file import load_study
from loragrid.study.tasks import code_in_tasks, scoring_digest
from loragrid.workflow.backup import StudyBackup
from loragrid.workflow.complete_study import write_complete_study
from loragrid.workflow.environment import job_environment, resume_message, start_fork_server
from loragrid.workflow.jobs import Jobs, files_digest
from loragrid.workflow.options import Options
from loragrid.workflow.preflight import check_machine
from loragrid.workflow.resident_workers import start_workers
from loragrid.workflow.results_lock import hold_results
from loragrid.workflow.run_checks import run_warnings
from loragrid.workflow.stop_signals import StopRequests
from loragrid.workflow.terminal.header import plan_call
from loragrid.workflow.terminal.running_job import job_name


@contextmanager
def user_errors():
    """End with a line for each mistake of the user in the block."""
    try:
        yield
    except UserError as error:
        print(*error_lines(error), sep="\n", file=sys.stderr)
        raise SystemExit(2)


with user_errors():
    OPTIONS = Options.read(config)
    STUDY = load_study(OPTIONS.study).with_backup(OPTIONS.backup)
    if workflow.exec_mode == ExecMode.DEFAULT:
        for slip in STUDY.likely_slips:
            print(f"warning: {slip}", file=sys.stderr)
        for line in code_in_tasks(STUDY):
            print(f"loragrid: {line}", file=sys.stderr)
    # A cluster's jobs run on other machines.
    if workflow.local_exec and workflow.exec_mode == ExecMode.DEFAULT:
        check_machine(STUDY)
    # No wildcard: one call runs one study, and every job would carry the name through each of its paths.
    RESULTS, REPORTS = f"results/{STUDY.name}", f"reports/{STUDY.name}"
    for place in (".snakemake", RESULTS, REPORTS):
        check_writable(Path.cwd() / place)
    JOBS = Jobs(STUDY, results=RESULTS, session_minutes=OPTIONS.session_minutes)
    SCORING = scoring_digest(STUDY)
    BACKUP = StudyBackup(JOBS)
    # Before Snakemake looks which files are there; a dry run changes nothing.
    if workflow.exec_mode == ExecMode.DEFAULT and not workflow.dryrun and STUDY.backup is not None:
        hold_results(Path(RESULTS))
        BACKUP.take_up()
    EXPORTED = JOBS.export_files(OPTIONS.run)
    if workflow.exec_mode == ExecMode.DEFAULT:
        for line in run_warnings(STUDY, Path(RESULTS)):
            print(f"loragrid: {line}", file=sys.stderr)

# Where there is nothing to be done, Snakemake does not come to `onstart`.
atexit.register(BACKUP.copy_missing, workflow)

os.environ |= job_environment(
    STUDY,
    session_minutes=OPTIONS.session_minutes or STUDY.training.session_minutes,
    starts_session=workflow.exec_mode != ExecMode.SUBPROCESS,
)


# The display of this call; None without the logger plugin, and in a process that does one job for another snakemake.
os.environ.pop(DISPLAY, None)
TERMINAL = next(
    (handler.display for handler in workflow.logger_manager.get_log_handlers() if hasattr(handler, "display")), None
)
if TERMINAL is not None:
    TERMINAL.report = Path(REPORTS) / "report.html"

# Snakemake looks for wildcards in the path of a conda environment, and a checkout's path may have braces.
ENVIRONMENT = str(CHECKOUT / "environment.yml").replace("{", "{{").replace("}", "}}")
IMAGE = str(CHECKOUT / "containers" / "loragrid.sif")
CONTAINED = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method


# What <results>, <logs> and so on stand for in the rules' paths.
pathvars:
    results=RESULTS,
    reports=REPORTS,
    logs=f"{RESULTS}/logs",
    benchmarks=f"{RESULTS}/benchmarks",


# How the id of a run ends, and those of a base and of an adopted adapter begin; and a part of a run's budget.
RUN_ID, BASE_ID, ADOPTED_ID = "[^/]+_[0-9a-f]{8}", "base-[^/]+-[0-9a-f]{8}", "adopted-[^/]+-[0-9a-f]{8}"
SHARE = "[0-9.e-]+"


wildcard_constraints:
    data="[^/]+",
    run=RUN_ID,


def winner():
    """The run id of the search's winner, if the search is part of the study; asking for it makes the search run first."""
    if JOBS.searched and not OPTIONS.partial:
        checkpoints.tune.get()
    return JOBS.winner()


def card_of(subject):
    """The data card of a subject, for a rule's input."""
    if not JOBS.has(subject):
        winner()
    try:
        return JOBS.card(subject)
    except UserError as error:
        raise WorkflowError(str(error))
