"""Find contamination: the items of the study's tasks that share a run of words with training rows.

    find_contamination.py --study FILE --data FOLDER --out FILE

Reads a prepared data set and the items that are scored, and writes one JSON file with the names of
the items that share an n-gram of 8 or of 13 words with a training row. It needs no model. The
held-out rows are no task here: their near duplicates are kept out of training.
"""

from loragrid.runtime.delegation.client import delegate_job

if __name__ == "__main__":
    delegate_job()  # before the imports below, which the process that takes it has made or makes anyway

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loragrid.data.contamination.ngram_overlap import (
    LENGTHS,
    MOST_ITEMS,
    SHORTEST,
    Items,
    Overlap,
    find_overlaps,
)
from loragrid.data.contamination.training_texts import training_texts
from loragrid.errors import first_line, log_option, one_line, print_result, run_main, summary_line
from loragrid.runtime.atomic_files import read_json, write_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.progress_lines import working
from loragrid.runtime.quiet_libraries import quiet_libraries
from loragrid.scoring.item_texts import item_texts
from loragrid.scoring.lm_eval_tasks import StudyTask, find_tasks
from loragrid.study.sections import HELDOUT_LOSS
from loragrid.study.study_file import Study, load_study

SCHEMA = 1
METHOD = {
    "words": list(LENGTHS),
    "shortest_text_words": SHORTEST,
    "most_items_of_an_ngram": MOST_ITEMS,
}


def find_contamination(*, study: Study, data: Path, out: Path) -> dict[str, Any]:
    """Write the contaminated items of every task of the study by the prepared data set in `data`.

    A task that cannot be built or read has its reason. Raises `UserError` for an unknown task, a
    broken task file, and rows that are not those in the data card.
    """
    card = read_json(data / "card.json")
    names = [name for name in study.scoring.tasks if name != HELDOUT_LOSS]
    items, reasons = read_items(find_tasks(names, limit=study.scoring.limit).values())
    overlaps, rows = find_overlaps(items, training_texts(study, data, card))
    found = {
        "schema": SCHEMA,
        "study": study.name,
        "data_id": card["data_id"],
        "set": card["set"],
        "data_fingerprint": card["fingerprint"],
        "rows": rows,
        "method": METHOD,
        "tasks": {name: task_facts(overlap) for name, overlap in overlaps.items()},
        "not_checked": reasons,
        "code": code_digest("find_contamination"),
    }
    write_json(out, found)
    return found


def read_items(tasks: Iterable[StudyTask]) -> tuple[dict[str, Items], dict[str, str]]:
    """The items of every task that can be read, and the reason of every other, by the task's name."""
    items, reasons = {}, {}
    for task in tasks:
        if task.loaded is None:
            reasons[task.name] = task.reason
            continue
        try:
            items[task.name] = item_texts(task)
        except Exception as error:  # a task's own functions can raise anything; scoring records it too
            reasons[task.name] = one_line(f"{type(error).__name__}: {first_line(error)}")
    return items, reasons


def task_facts(overlap: Overlap) -> dict[str, Any]:
    """Counts of a task's items, and the names of those that share an n-gram of each length."""
    found = {
        "items": overlap.items,
        "checked": overlap.items - len(overlap.too_short),
        "too_short": len(overlap.too_short),
        "compared_whole": len(overlap.whole),
    }
    for n in LENGTHS:
        found[f"contaminated_{n}"] = len(overlap.contaminated[n])
    for n in LENGTHS:
        found[f"items_{n}"] = overlap.contaminated[n]
    return found | {"examples": [asdict(match) for match in overlap.examples]}


def print_counts(found: dict[str, Any]) -> None:
    """Print one line on the tasks with contaminated items."""
    first = LENGTHS[0]
    tasks = {name: task for name, task in found["tasks"].items() if task[f"contaminated_{first}"]}
    counts = [f"{task[f'contaminated_{first}']} of {task['items']} items of {name}" for name, task in tasks.items()]
    text = ", ".join(counts) or "no item"
    print_result(
        f"contamination {found['set']}: {text} with a run of {first} words of the {found['rows']} training rows"
    )


def main() -> None:
    """Map the command line to `find_contamination`."""
    parser = argparse.ArgumentParser(description=summary_line(__doc__), parents=[log_option()])
    parser.add_argument("--study", required=True, help="study file, or a name in config/studies")
    parser.add_argument("--data", required=True, type=Path, help="folder of the prepared data set")
    parser.add_argument("--out", required=True, type=Path, help="JSON file to write")
    options = parser.parse_args()
    quiet_libraries()
    with working("[find_contamination] looking for the tasks' items in the training rows"):
        found = find_contamination(study=load_study(options.study), data=options.data, out=options.out)
    print_counts(found)


if __name__ == "__main__":
    run_main(main)
