"""The resume certificate: a run that is killed again and again ends with the same bytes.

    certify.py [--study FILE] [--method M …] [--gpus N | --worker] [--kills K] [--seed S] [--out FILE]

For each variant (plain, with dropout and, if bitsandbytes is installed, with an 8-bit optimizer; or
the methods that are given) it trains a short version of the study's base case as a reference. Then
it trains the same run again and sends SIGKILL to its process group at seeded random moments: at any
time, or as soon as a save has begun. It resumes the run until it ends, and repeats with a new run
until K kills have hit. The cost of a kill comes from the run's own history: the step at which the
killed session ended minus the step at which the next one began. With --worker each session is the
second job of a resident worker, which holds the base of its first, and the reference has a process of
its own. Exit status 1 if anything differs from the reference, or if a kill cost more than one save
interval.
"""

if __name__ == "__main__":
    import check_environment  # noqa: F401  ends the process if packages are missing

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from loragrid.errors import Failed, print_line, run_main, summary_line
from loragrid.paths import SCRIPTS
from loragrid.runtime.atomic_files import write_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.provenance import device_info, git_state, versions
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.study.methods import ADAPTER_SETTINGS, METHODS
from loragrid.study.study_file import Study, load_study
from loragrid.training.kill_and_resume import COMPARED, certify_resume
from tools.certified_sessions import Sessions, session_trainer

SCHEMA = 1
# Few rows, so that the data are seen more than once. The intervals do not divide each other, so
# that saves come with and without an evaluation.
SHORT_ROWS, SHORT_HELDOUT_ROWS = 100, 8
SHORT_CASE = {"budget": {"steps": 16}, "evaluations": 3}
SHORT_TRAINING = {"save_steps": 4, "save_minutes": 10, "session_minutes": None, "report_to": "none"}
# What a resident worker does before.
EARLIER = {"seed": 1, "budget": {"steps": 2}, "evaluations": 1}
# Weights kept along a run must survive a kill too.
SHORT_SCORING = {"at": [0.4, 1.0]}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"dropout": 0.0, "optimizer": "adamw_torch"},
    "dropout": {"dropout": 0.1, "optimizer": "adamw_torch"},
    "dropout, 8-bit optimizer": {"dropout": 0.1, "optimizer": "adamw_8bit"},
}


def method_variants(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A variant of each method, with dropout if it has any."""
    variants = {}
    for name in methods:
        variants[name] = {"method": name, "optimizer": "adamw_torch"}
        if "dropout" in METHODS[name].settings:
            variants[name]["dropout"] = 0.1
    return variants


def certify(
    *,
    study: Study,
    variants: Mapping[str, dict[str, Any]],
    kills: int,
    seed: int,
    work: Path,
    sessions: Sessions,
) -> dict[str, Any]:
    """The certificate of those `variants` of a study's base case that this machine can train."""
    gpus = sessions.gpus
    short = shorten(study, work / f"{study.name}.yaml", gpus=gpus)
    data_folder = prepare_data(short, work / "data")
    import_training_libraries(short.base_case.backend)
    results, skipped = [], {}
    for name, changes in variants.items():
        if "8bit" in changes["optimizer"] and find_spec("bitsandbytes") is None:
            skipped[name] = "bitsandbytes is not installed"
            continue
        number = len(results)
        variant = with_settings(short, work / f"{number}.yaml", **changes)
        earlier = with_settings(short, work / f"{number}-earlier.yaml", **changes, **EARLIER)
        found = certify_resume(
            session_trainer(sessions, variant, data_folder, earlier=earlier),
            work=work / f"runs-{number}",
            kills=kills,
            seed=seed,
            save_steps=variant.training.save_steps,
            log=print_line,
        )
        results.append({"variant": name, **changes, "run": variant.cells[0].run, **found})
        print_line(summary(results[-1]))
    return {
        "schema": SCHEMA,
        "holds": all(result["holds"] for result in results),
        "complete": not skipped,
        "skipped": skipped,
        "study": study.name,
        "backend": short.base_case.backend,
        "processes": gpus,
        "resident_worker": sessions.worker,
        "seed": seed,
        "variants": results,
        **_provenance(),
    }


def _provenance() -> dict[str, Any]:
    return {
        "versions": versions(),
        "git": git_state(),
        "device": device_info(),
        "code": code_digest("train"),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def shorten(study: Study, path: Path, *, gpus: int = 1) -> Study:
    """The study's base case alone, with little data and few updates, for `gpus` processes; written to `path`."""
    settings = study.yaml
    case, data = settings["base_case"], settings["data"]
    few = {case["data"]: data[case["data"]] | {"rows": SHORT_ROWS}}
    changes = {
        "data": data | few,
        "heldout": settings["heldout"] | {"rows": SHORT_HELDOUT_ROWS},
        "base_case": case | SHORT_CASE,
        "training": settings["training"] | SHORT_TRAINING | {"gpus": gpus},
        "scoring": settings["scoring"] | SHORT_SCORING,
        "grid": {},
        "adopt": {},
        "tune": None,
    }
    return _written(settings | changes, path)


def with_settings(study: Study, path: Path, **changes: Any) -> Study:
    """The study with other settings of its base case; written to `path`."""
    case = study.yaml["base_case"] | changes
    absent = ADAPTER_SETTINGS - METHODS[case["method"]].settings
    case = {name: value for name, value in case.items() if name not in absent}
    return _written(study.yaml | {"base_case": case}, path)


def prepare_data(study: Study, folder: Path) -> Path:
    """Prepare the base case's data in `folder`, and return it."""
    # A process, because stages never import each other.
    command = [sys.executable, str(SCRIPTS / "prepare_data.py"), "--study", str(study.path)]
    command += ["--data", study.cells[0].data, "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise Failed(f"prepare_data ended with status {done.returncode}: {last}")
    return folder


def import_training_libraries(backend: str = "trl") -> None:
    """Import everything that training needs, so that each session, a fork, starts at once."""
    # Only imports: a thread pool that has computed something does not survive a fork.
    import datasets  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch

    if backend == "unsloth":
        from loragrid.training.backends.unsloth import import_unsloth_trainer
        from loragrid.training.backends.unsloth_loading import import_unsloth

        import_unsloth()
        import_unsloth_trainer()
    from peft import LoraConfig  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    from loragrid.training.backends.trl_trainer import import_trainer

    torch.set_num_threads(1)
    import_trainer()
    # Cached: the forks run this code, even if a file is edited meanwhile.
    code_digest("train")


def verdict(found: dict[str, Any]) -> str:
    """The certificate in a few words, with the variants that it does not cover."""
    if not found["holds"]:
        return "DOES NOT HOLD"
    skipped, trained = found["skipped"], len(found["variants"])
    text = f"holds for {trained} of {trained + len(skipped)} variants"
    for name, reason in skipped.items():
        text += f"; {name}: not certified, {reason}"
    return text


def summary(result: dict[str, Any]) -> str:
    """One line about a variant."""
    parts = []
    for part in COMPARED:
        parts.append(f"{part.replace('_', ' ')} {'equal' if result['equal'][part] else 'DIFFER'}")
    return (
        f"{result['variant']}: {result['kills']} kills ({result['kills_in_a_save']} in a save) "
        f"over {result['runs']} runs, {result['steps_replayed']} steps replayed, at most "
        f"{result['most_steps_replayed']} of {result['save_steps']} by one kill; {', '.join(parts)}"
    )


def _written(settings: dict[str, Any], path: Path) -> Study:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return load_study(str(path))


def main() -> None:
    """Map the command line to `certify`, and write and print the certificate."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__))
    parser.add_argument("--study", default="demo", help="study with the base case (default: demo)")
    methods = [name for name in METHODS if name != "none"]
    parser.add_argument("--method", action="append", choices=methods, help="method to certify instead; may be repeated")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--gpus", type=int, default=1, help="processes that train a run together, on a CPU (default: 1)")
    way.add_argument("--worker", action="store_true", help="each session as a later job of a resident worker")
    parser.add_argument("--kills", type=int, default=100, help="kills per variant (default: 100)")
    parser.add_argument("--seed", type=int, default=3407, help="seed of the kills (default: 3407)")
    parser.add_argument("--out", type=Path, default=Path("results/certificate.json"), help="certificate to write")
    arguments = parser.parse_args()
    quiet_libraries()
    work = Path(tempfile.mkdtemp(prefix="loragrid-certify-"))
    try:
        study = load_study(arguments.study)
        variants = method_variants(arguments.method) if arguments.method else VARIANTS
        counts = {"kills": arguments.kills, "seed": arguments.seed}
        sessions = Sessions(gpus=arguments.gpus, worker=arguments.worker)
        found = certify(study=study, variants=variants, work=work, sessions=sessions, **counts)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write_json(arguments.out, found)
    print(f"{verdict(found)}: {arguments.out}")
    for result in found["variants"]:
        print(summary(result))
    if not found["holds"]:
        raise Failed(f"resumed runs differ from the reference: see {arguments.out}")


if __name__ == "__main__":
    run_main(main)
