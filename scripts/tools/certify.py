"""The resume certificate: a run killed at random moments, again and again, ends with the bytes of the uninterrupted run.

    certify.py [--study FILE] [--kills K] [--seed S] [--out FILE]

For each variant (plain; with dropout; with an 8-bit optimizer too, where bitsandbytes is installed) a reference run of a
short form of the study's base case is trained, then the same run again, its process group sent SIGKILL at seeded random
moments: at any time, or as soon as a save has begun. It is started again until it ends; then comes the next, until K
kills have hit. What a kill cost is taken from the run's own history: where the killed session ended less where the next
began. Exit status 1 if anything differs from the reference, or a kill cost more than one save interval.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from loragrid.errors import Failed, print_line, run_main
from loragrid.paths import ROOT, SCRIPTS
from loragrid.runtime.atomic_files import write_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.provenance import device_info, git_state, versions
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study, load_study
from loragrid.training.kill_and_resume import PARTS, certify_resume
from train import train_run

SCHEMA = 1
# Few rows, so that the data are seen more than once; intervals that fall between each other.
SHORT_DATA = {"max_rows": 100, "heldout_rows": 8}
SHORT_TRAINING = {
    "budget": {"steps": 16},
    "save_steps": 4,
    "save_minutes": 10,
    "evaluate_every_steps": 6,
    "session_minutes": None,
    "report_to": "none",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"dropout": 0.0, "optimizer": "adamw_torch"},
    "dropout": {"dropout": 0.1, "optimizer": "adamw_torch"},
    "dropout, 8-bit optimizer": {"dropout": 0.1, "optimizer": "adamw_8bit"},
}


def certify(*, study: Study, kills: int, seed: int, work: Path) -> dict[str, Any]:
    """Certify every variant of a study's base case that this machine can train, and return the certificate."""
    short = shorten(study, work / f"{study.name}.yaml")
    data_folder = prepare_data(short, work / "data")
    import_training_libraries(short.training.backend)
    results, skipped = [], {}
    for name, changes in VARIANTS.items():
        if "8bit" in changes["optimizer"] and find_spec("bitsandbytes") is None:
            skipped[name] = "bitsandbytes is not installed"
            continue
        variant = with_training(short, work / f"{len(results)}.yaml", **changes)
        cell = variant.cells[0]

        def train(out: Path, variant: Study = variant, cell: Cell = cell) -> None:
            train_run(study=variant, cell=cell, data_folder=data_folder, out=out)

        interval = variant.training.save_steps
        found = certify_resume(
            train, work=work / f"runs-{len(results)}", kills=kills, seed=seed, save_steps=interval, say=print_line
        )
        results.append({"variant": name, **changes, "run": cell.run, **found})
        print_line(summary(results[-1]))
    return {
        "schema": SCHEMA,
        "holds": all(result["holds"] for result in results),
        "complete": not skipped,
        "skipped": skipped,
        "study": study.name,
        "backend": short.training.backend,
        "seed": seed,
        "variants": results,
        "versions": versions(),
        "git": git_state(),
        "device": device_info(),
        "code": code_digest("train"),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def shorten(study: Study, path: Path) -> Study:
    """The study's base case alone, with little data and few updates."""
    settings = study.yaml
    grid = {"design": "one_factor"} | {axis: [value] for axis, value in settings["base_case"].items()}
    changes = {"data": settings["data"] | SHORT_DATA, "training": settings["training"] | SHORT_TRAINING, "grid": grid}
    return _written(replace(study, yaml=settings | changes), path)


def with_training(study: Study, path: Path, **changes: Any) -> Study:
    """The study with other training settings."""
    return _written(replace(study, yaml=study.yaml | {"training": study.yaml["training"] | changes}), path)


def prepare_data(study: Study, folder: Path) -> Path:
    """Run the stage that prepares the base case's data; no stage imports another."""
    script = SCRIPTS / "prepare_data.py"
    command = [sys.executable, str(script), "--study", str(study.path), "--data", study.cells[0].data]
    done = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"prepare_data ended with status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return folder


def import_training_libraries(backend: str = "trl") -> None:
    """Import what training needs once, here: each session is a fork of this process and starts in no time.

    Nothing is computed before the forks, so that no thread pool is inherited half. The digest of the code is taken now:
    an edit of a file while this runs is no part of what the forks run.
    """
    import datasets  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch

    if backend == "unsloth":
        from loragrid.training.backends.unsloth import import_unsloth, import_unsloth_trainer

        import_unsloth()
        import_unsloth_trainer()
    from peft import LoraConfig  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    from loragrid.training.backends.trl import import_trainer

    torch.set_num_threads(1)
    import_trainer()
    code_digest("train")


def verdict(found: dict[str, Any]) -> str:
    """The certificate in a few words; one that leaves a variant out is no full one and says so."""
    if not found["holds"]:
        return "DOES NOT HOLD"
    left_out = "".join(f"; {name}: not certified, {reason}" for name, reason in found["skipped"].items())
    trained = len(found["variants"])
    return f"holds for {trained} of {trained + len(found['skipped'])} variants{left_out}"


def summary(result: dict[str, Any]) -> str:
    """A variant's line of the table."""
    equal = ", ".join(f"{part.replace('_', ' ')} {'equal' if result['equal'][part] else 'DIFFER'}" for part in PARTS)
    return (
        f"{result['variant']}: {result['kills']} kills ({result['kills_in_a_save']} in a save) over {result['runs']} "
        f"runs, {result['steps_replayed']} steps replayed, at most {result['most_steps_replayed']} of "
        f"{result['save_steps']} by one kill; {equal}"
    )


def _written(study: Study, path: Path) -> Study:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(study.yaml), encoding="utf-8")
    return load_study(str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="demo", help="study whose base case is trained (default: demo)")
    parser.add_argument("--kills", type=int, default=100, help="kills per variant (default: 100)")
    parser.add_argument("--seed", type=int, default=3407, help="seed of the moments (default: 3407)")
    parser.add_argument("--out", type=Path, default=Path("results/certificate.json"), help="certificate to write")
    arguments = parser.parse_args()
    quiet_libraries()
    work = Path(tempfile.mkdtemp(prefix="loragrid-certify-"))
    try:
        found = certify(study=load_study(arguments.study), kills=arguments.kills, seed=arguments.seed, work=work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write_json(arguments.out, found)
    print(f"{verdict(found)}: {arguments.out}")
    for result in found["variants"]:
        print(summary(result))
    if not found["holds"]:
        raise Failed(f"resumed runs differ from the reference: see {arguments.out} of {ROOT.name}")


if __name__ == "__main__":
    run_main(main)
