"""Verify that the results of a finished study are as they were written.

    python scripts/tools/verify_results.py [--study STUDY] [--results FOLDER]     (make verify)

Compares every file with the digest that its stage kept: the prepared data, the runs with their weights, the losses of
bases, the scores, the comparison, the page with its figures and tables, and the exports that are there; and each base
in a local folder with the one that its runs were trained on. Names each file that has changed or is gone, each folder
without digests, and the results that never have any. Exit status: 0 if all is as it was, else 1.
"""

if __name__ == "__main__":
    import check_environment  # noqa: F401  ends the process if packages are missing

import argparse
from collections.abc import Iterator
from pathlib import Path

import yaml

from loragrid.errors import Failed, UserError, one_line, run_main, summary_line
from loragrid.models.model_files import weights_sha256
from loragrid.paths import ROOT
from loragrid.records.record import RunRecord, find_record
from loragrid.records.seal import SEAL, changed_files, says_sealed, sealed_files
from loragrid.runtime.atomic_files import read_json
from loragrid.runtime.progress_lines import ProgressLines
from loragrid.scoring.heldout.kept_losses import changed_base_losses
from loragrid.study.search.winner import cells_with_winner
from loragrid.study.study_file import Study, load_study

UNCOVERED = "logs, checkpoints and history of runs, the search, options (next/), find_contamination/ and hub models"


def verify(study: Study, results: Path) -> list[str]:
    """One line for each part of a study's results that is not as it was written."""
    if not results.is_dir():
        raise UserError(f"{results}: no results of the study {study.name}. Fix: run the study, or give --results.")
    found = []
    folders = list(sealed_folders(study, results))
    with ProgressLines(f"[{study.name}] comparing with the digests", total=len(folders), items="folders") as progress:
        for folder, record in folders:
            found += _folder_problems(folder, record)
            progress.add(items=1)
    found += [f"{path}: changed" for path in changed_base_losses(results)]
    return found + _base_problems(study, results)


def sealed_folders(study: Study, results: Path) -> Iterator[tuple[Path, str]]:
    """Each folder that a finished study has, and its exports; with each the record that its stage writes last."""
    runs = [cell.run for cell in cells_with_winner(study, results)]
    shares = [f"@{share:g}" for share in study.scoring.at if share < 1]
    along = [f"{run}{share}" for run in runs for share in shares]
    for data in study.data_sets:
        yield results / "data" / data, "card.json"
    for run in runs:
        yield results / "train" / run, "record.json"
    for subject in (*study.bases, *runs, *along, *study.adopted):
        yield results / "score" / subject, "score.json"
    yield results / "compare", "compare.json"
    yield results.parent.parent / "reports" / results.name, "report.html"
    for folder in sorted((results / "export").glob("*_????????/")):
        yield folder, "export.json"


def _folder_problems(folder: Path, record: str) -> list[str]:
    if not (folder / record).is_file():
        return [f"{folder}: not finished, or its {record} is gone"]
    try:
        if sealed_files(folder) is None and says_sealed(folder):
            return [f"{folder / SEAL}: gone"]
        if sealed_files(folder) is None:
            return [f"{folder}: no digests; it was made before they were kept"]
        changed = changed_files(folder)
        owner = _owner(folder / record)
    except UserError as error:
        return [one_line(str(error))]
    found = [f"{folder / name}: {'changed' if (folder / name).is_file() else 'gone'}" for name in changed]
    if not found and record not in sealed_files(folder):
        found = [f"{folder / 'sealed.json'}: changed; it has no digest of {record}"]
    if not found and owner not in (None, folder.name):
        found = [f"{folder}: the results of {owner}, not its own"]
    return found


def _owner(record: Path) -> str | None:
    """The run or subject that a record names; None for the records of data and of the comparison."""
    if record.name not in ("record.json", "score.json"):
        return None
    kept = read_json(record)
    return kept.get("run") or kept.get("subject") if isinstance(kept, dict) else None


def _base_problems(study: Study, results: Path) -> list[str]:
    """Bases in local folders whose weights are not those that a run was trained on."""
    found, digests = [], {}
    for cell in study.cells:
        entry = study.models[cell.model]
        record, _ = find_record(results / "train" / cell.run / "record.json", RunRecord)
        if record is None or entry.folder is None:
            continue
        if cell.model not in digests:
            digests[cell.model] = weights_sha256(entry.folder)
        if record.base_sha256 != digests[cell.model]:
            found.append(f"{entry.folder}: not the base that {cell.run} was trained on")
    return found


def main() -> None:
    """Map the command line to `verify`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__))
    parser.add_argument("--study", help="name or file of the study (default: the one in config/config.yaml)")
    parser.add_argument("--results", type=Path, help="folder of the study's results (results/STUDY)")
    options = parser.parse_args()
    configured = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))["study"]
    study = load_study(options.study or configured)
    results = options.results or Path("results") / study.name
    problems = verify(study, results)
    for line in problems:
        print(line)
    if problems:
        raise Failed(f"{results}: {len(problems)} of its parts are not as they were written")
    count = sum(len(sealed_files(folder)) for folder, _ in sealed_folders(study, results))
    print(f"{results}: all {count} files are as they were written. Without digests: {UNCOVERED}.")


if __name__ == "__main__":
    run_main(main)
