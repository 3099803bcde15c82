# What all rules share: the study, its cells, and where the scripts are. Of the results only the search's is read, for its winner.
import atexit
import gc
import inspect
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from snakemake.settings.types import ExecMode

# What planning makes stays until the end: Python's collector would look through millions of objects over and over.
gc.set_threshold(50_000, 20, 100)

ROOT = Path(workflow.basedir).parent
SCRIPTS = ROOT / "scripts"

from loragrid.planning.gpu_cards import choose_device, gpu_here
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.atomic_files import check_writable, sha256_file, sha256_json
from loragrid.errors import UserError, one_line
from loragrid.planning.forecast import misfits

from loragrid.planning.job_memory import check_target_modules
from loragrid.planning.job_resources import jobs_resources
from loragrid.study.search_point import settings_sha256
from loragrid.runtime.session import session_seconds
from loragrid.study.study_file import load_study
from loragrid.runtime.command_line import check_names, check_targets, switch
from loragrid.study.tasks import scoring_digest
from loragrid.runtime.fork_server import VARIABLE
from loragrid.study.winner import winner_cell

try:
    check_names(config)
    STUDY = load_study(config["study"])
    # No wildcard: one call runs one study, and every job would carry the name through each of its paths.
    RESULTS, REPORTS = f"results/{STUDY.name}", f"reports/{STUDY.name}"
    for place in (".snakemake", RESULTS, REPORTS):
        check_writable(Path.cwd() / place)
    PARTIAL, WARM = switch(config, "partial", default=False), switch(config, "warm", default=True)
    SESSION_SECONDS = session_seconds(
        config.get("session_minutes", STUDY.training.session_minutes), key="session_minutes"
    )
    CELLS = {cell.run: cell for cell in STUDY.cells}
    BASES = {cell.base: cell.model for cell in CELLS.values()}
    SCORING = scoring_digest(STUDY)
    check_target_modules(STUDY, CELLS.values())
    SEARCH_ENABLED = bool(STUDY.tune) and STUDY.tune.enabled
    WINNER = winner_cell(STUDY, Path(RESULTS)) if SEARCH_ENABLED else None
    runs = {*CELLS, WINNER.run} if WINNER else set(CELLS)
    check_targets(
        sys.argv[1:],  # what Snakemake takes as targets is not known yet when this is read
        results=RESULTS,
        known={"data": {cell.data for cell in CELLS.values()}, "train": runs, "score": runs | set(BASES)},
    )
    RESOURCES = jobs_resources(
        STUDY,
        CELLS.values(),
        results=Path(RESULTS),
        session_minutes=config.get("session_minutes"),
    )
    SEARCH = sha256_json([settings_sha256(STUDY), STUDY.tune.trials]) if STUDY.tune else None
except UserError as error:
    print(f"error: {one_line(str(error))}", file=sys.stderr)
    raise SystemExit(2)


# What <results>, <logs> and so on stand for in the rules' paths.
pathvars:
    results=RESULTS,
    reports=REPORTS,
    logs=f"{RESULTS}/logs",
    benchmarks=f"{RESULTS}/benchmarks",


# Data id of every subject that is scored; a base is scored on the held-out rows that its runs are.
SUBJECT_DATA = {cell.run: cell.data for cell in CELLS.values()} | {cell.base: cell.data for cell in CELLS.values()}

# The cell that every axis departs from stands first; the search's winner shares its model and data.
BASE_CASE = next(iter(CELLS.values()))

# Later cells wait for earlier ones, so that what a session leaves is a usable study: a cell is trained when all before it are
# scored, and a base is scored with the first cell that is compared with it.
TURNS = {}
for turn, cell in enumerate(CELLS.values()):
    for name in (cell.run, cell.base, cell.data):
        TURNS.setdefault(name, turn)

SEARCH_RESULT = f"{RESULTS}/tune/tune.json"
# For whom a rule may hold one value in the place of a function of the wildcards; a winner is known when the search is done.
KNOWN = () if SEARCH_ENABLED else SUBJECT_DATA

# Where a job finds the scripts, the study and this environment's python. They are no params: another checkout, another way to
# write the study file's path or another session length would run everything again. A job on another node sets them anew.
os.environ.update(
    SCRIPTS=str(SCRIPTS),
    STUDY=str(STUDY.path),
    PYTHONPATH=str(SCRIPTS),
    PATH=os.pathsep.join((str(Path(sys.executable).parent), *os.get_exec_path())),
    SESSION=f"--session-minutes {SESSION_SECONDS / 60}" if SESSION_SECONDS else "",
)
# One end for all jobs of this call: what an earlier job took is gone for a later one. A cluster's job is a session of its own,
# on another machine, where Snakemake reads this file again; only one that runs a job for its parent keeps the parent's end.
if workflow.exec_mode != ExecMode.SUBPROCESS:
    os.environ.update(SESSION_ENDS=f"--session-ends {time.monotonic() + SESSION_SECONDS}" if SESSION_SECONDS else "")


# How a run's id ends, and a base's.
RUN_ID, BASE_ID = "[^/]+_[0-9a-f]{8}", "base-[^/]+-[0-9a-f]{8}"


wildcard_constraints:
    data="[^/]+",
    run=RUN_ID,


def winners():
    """The run id of the search's winner, if the search is part of the study and the grid lacks that run; makes it come first."""
    if not SEARCH_ENABLED:
        return []
    if not PARTIAL:
        checkpoints.tune.get()
    cell = winner_cell(STUDY, Path(RESULTS))
    return [cell.run] if cell else []


def by(name, tell, among=()):
    """What `tell` says of the run, base or data set in wildcard `name`: a function of the wildcards, or the value itself where it
    is the same for all of `among`. The function carries its signature: Snakemake asks for it more than twenty times a job,
    and to work it out anew took a tenth of the time of 20,000 jobs."""
    told = {tell(member) for member in among}
    if len(told) == 1:
        return told.pop()

    def of_wildcards(wildcards):
        return tell(wildcards[name])

    of_wildcards.__signature__ = inspect.signature(of_wildcards)
    return of_wildcards


def card_of(subject):
    """The data card of a run or a base."""
    if subject not in SUBJECT_DATA and subject in winners():
        subject = BASE_CASE.run
    return f"{RESULTS}/data/{SUBJECT_DATA[subject]}/card.json"


def study_of(subject):
    """The study file that holds a run or a base, for the shell: this one, or the winner's."""
    return '"$STUDY"' if subject in SUBJECT_DATA else f"{RESULTS}/tune/winner/{STUDY.name}.yaml"


def asked(resource, stage, wildcard):
    """What a stage's job asks for by the plan: `vram_mib` binds when a limit is given (`--resources vram_mib=…`), `runtime` and
    `mem_mb` on a cluster. The search's winner, which is no cell of the study, asks as the base case does."""
    requests = RESOURCES[stage]
    return by(wildcard, lambda name: requests.get(name, requests[BASE_CASE.run])[resource], among=requests)


def precedence(name, *, late=0):
    """Priority of a job on that run, base or data set; the search's winner comes last, `late` puts a job behind its cell's others."""
    return 2 * (len(CELLS) - TURNS.get(name, len(CELLS))) - late


def search_input(wildcards):
    """The search's result where the search is part of the study."""
    return [SEARCH_RESULT] if SEARCH_ENABLED and not PARTIAL else []


def search_beside():
    """Digest of the result of a search that is not part of the study: the page shows it, but never makes it run again."""
    return sha256_file(SEARCH_RESULT) if not SEARCH_ENABLED and Path(SEARCH_RESULT).exists() else None


def score_inputs(wildcards):
    """The score record of every base and run; with `--config partial=true` only of those already scored."""
    files = [f"{RESULTS}/score/{subject}/score.json" for subject in (*BASES, *CELLS, *winners())]
    return [file for file in files if Path(file).exists()] if PARTIAL else files


def files_digest(*files):
    """Digest of files that belong to the code. As a param and not as inputs: the checkout may be moved."""
    return sha256_json([[file.name, sha256_file(file)] for file in sorted(files)])


def can_be_warm(workflow):
    """Whether the jobs of this run may share the imports of `loragrid.runtime.fork_server`: they run here, in one thread each (the number is fixed
    when torch is imported), and not by unsloth, which wants to be imported first."""
    training, scoring = STUDY.training, STUDY.scoring
    plain = training.backend == "trl" or (training.backend == "auto" and gpu_here() is None)
    return (
        workflow.local_exec and plain and training.threads == scoring.threads == 1 and hasattr(os, "pidfd_open")
    )


def keep_warm():
    """Name the folder where the first job starts the warm interpreter that the others are forked from; one that is named
    already, by whoever calls snakemake several times, stays."""
    if VARIABLE in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="loragrid-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Path(folder, "owner").write_text(str(os.getpid()))
    os.environ[VARIABLE] = folder


def where_it_is():
    """Where the report lies, once it does."""
    page = Path(f"{REPORTS}/report.html")
    return f"\nloragrid: the report is {page.resolve()}" if page.exists() else ""


def how_to_go_on():
    """What to type after a stop, for whoever does not know Snakemake."""
    return (
        "\nloragrid: the study is not finished. What is done is kept: run the same command to go on "
        "(after a hard kill first `snakemake --unlock`).\n"
        f"The report of what is finished: snakemake --cores 1 --config study={config['study']} partial=true"
    )
