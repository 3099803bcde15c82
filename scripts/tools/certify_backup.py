"""The backup certificate: a run that is killed and whose machine is wiped, again and again, ends with the same bytes.

    certify_backup.py [--study FILE] [--kills K] [--seed S] [--out FILE]

It trains a short version of the study's base case, with dropout and with weights kept along the way, as a reference.
Then it trains the same run with a backup in a folder, sends SIGKILL to its process group at seeded random moments (at
any time, or while a checkpoint is copied), deletes the run's folder and starts it again, until K kills have hit. Exit
status 1 if anything differs from the reference, or if a session did not begin at the newest whole copy.
"""

if __name__ == "__main__":
    import check_environment  # noqa: F401  ends the process if packages are missing

import argparse
import random
import shutil
import tempfile
from pathlib import Path

from loragrid.backup.results import copies_of, place_of
from loragrid.errors import Failed, print_line, run_main, summary_line
from loragrid.runtime.atomic_files import write_json
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.study.study_file import Study, load_study
from loragrid.training.kill_and_wipe import WipeTest, certify_backup
from tools.certify import import_training_libraries, prepare_data, shorten, with_settings
from train import train_run

DROPOUT = 0.1


def certify(study: Study, *, kills: int, seed: int, work: Path) -> dict:
    """The backup certificate of a study's base case; files are written to `work`."""
    short = shorten(study, work / f"{study.name}.yaml")
    short = with_settings(short, work / "short.yaml", dropout=DROPOUT)
    data_folder = prepare_data(short, work / "data")
    import_training_libraries(short.base_case.backend)
    (work / "place").mkdir()
    cell, backed_up = short.cells[0], short.with_backup(f"folder:{work / 'place' / 'copies'}")
    test = WipeTest(
        train=lambda out: train_run(study=backed_up, cell=cell, data_folder=data_folder, out=out),
        reference=lambda out: train_run(study=short, cell=cell, data_folder=data_folder, out=out),
        copies=copies_of(place_of(backed_up), backed_up, "train", cell.run),
        kills=kills,
        moments=random.Random(seed),
    )
    found = certify_backup(test, work=work / "runs", log=print_line)
    return {"study": study.name, "run": cell.run, "save_steps": short.training.save_steps, "seed": seed, **found}


def summary(found: dict) -> str:
    """One line about the certificate."""
    different = [part for part, same in found["equal"].items() if not same]
    return (
        f"{found['kills']} kills and wipes ({found['kills_in_a_copy']} in a copy) over {found['runs']} runs, "
        f"{found['steps_replayed']} steps replayed, at most {found['most_steps_replayed']} by one kill; "
        f"{found['sessions_not_resumed']} sessions began elsewhere than at the newest whole copy; "
        f"different: {', '.join(different) or 'nothing'}"
    )


def main() -> None:
    """Map the command line to `certify`, and write and print the certificate."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__))
    parser.add_argument("--study", default="demo", help="study with the base case (default: demo)")
    parser.add_argument("--kills", type=int, default=20, help="kills (default: 20)")
    parser.add_argument("--seed", type=int, default=3407, help="seed of the kills (default: 3407)")
    out = Path("results/backup_certificate.json")
    parser.add_argument("--out", type=Path, default=out, help="certificate to write")
    arguments = parser.parse_args()
    quiet_libraries()
    work = Path(tempfile.mkdtemp(prefix="loragrid-certify-"))
    try:
        found = certify(load_study(arguments.study), kills=arguments.kills, seed=arguments.seed, work=work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write_json(arguments.out, found)
    print(f"{'holds' if found['holds'] else 'DOES NOT HOLD'}: {arguments.out}")
    print(summary(found))
    if not found["holds"]:
        raise Failed(f"resumed runs differ from the reference: see {arguments.out}")


if __name__ == "__main__":
    run_main(main)
