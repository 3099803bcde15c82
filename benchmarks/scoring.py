"""Scoring a base and its adapters by loragrid, and by the `lm_eval` command once per adapter: speed and equality.

    python -m benchmarks.scoring [--study demo] [--adapters 8] [--steps 20] [--repeats 2]
                                 [--ways workflow "one process" "a process each" lm_eval] [--out FILE.json]

First the adapters are trained for a few updates, at learning rates that span two decades so that the adapters differ. The ways
to score take turns: the workflow, which is `snakemake --cores 1` with its start; `scripts/score.py --list`, one process with
the base loaded once; `scripts/score.py` once per subject; the `lm_eval` command once per subject. Held-out loss and side-by-side
answers are left out, because lm_eval has neither. Then the values of all items of the workflow and of lm_eval are compared.
"""

import argparse
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measuring import RESULTS, in_turn, ratios, run, spread, write
from loragrid.paths import ROOT, SCRIPTS

WAYS = ("workflow", "one process", "a process each", "lm_eval")


def make_study(study: str, folder: Path, *, adapters: int, steps: int) -> Path:
    """A study of `adapters` learning rates of one model, without held-out loss and prompts in its scoring."""
    from loragrid.study.study_file import load_study

    settings = load_study(study).yaml
    rates = [round(1e-3 * 10 ** (2 * index / max(1, adapters - 1)), 9) for index in range(adapters)]
    settings["base_case"]["learning_rate"] = rates[0]
    settings["grid"] = {"axes": {"learning_rate": rates}}
    settings["base_case"]["budget"] = {"steps": steps}
    for group in ("target", "retention"):
        settings["scoring"][group] = [task for task in settings["scoring"][group] if task != "heldout_loss"]
    settings["scoring"]["qualitative"] = None
    path = folder / "scoring.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def measure(
    study: str, *, adapters: int, steps: int, repeats: int, folder: Path, ways: Sequence[str] = WAYS
) -> dict[str, Any]:
    """Train, score in all ways, compare those of the workflow with lm-eval's."""
    path = make_study(study, folder, adapters=adapters, steps=steps)
    snakemake = [sys.executable, "-m", "snakemake", "--cores", "1", "--snakefile", ROOT / "workflow" / "Snakefile"]
    snakemake += ["--directory", folder, "--config", f"study={path}", "--until"]
    run([*snakemake, "train"], log=folder / "log")
    results = folder / "results" / path.stem
    subjects = list_subjects(path, results)
    numbers = iter(range(10_000))

    def workflow() -> dict[str, Any]:
        shutil.rmtree(results / "score", ignore_errors=True)
        return run([*snakemake, "score", "score_base"], log=folder / "log")

    def listed() -> dict[str, Any]:
        out = folder / f"listed{next(numbers)}"
        lines = [json.dumps(subject | {"out": str(out / subject["subject"])}) for subject in subjects]
        (folder / "subjects.jsonl").write_text("\n".join(lines))
        return run([sys.executable, SCRIPTS / "score.py", "--study", path, "--list", folder / "subjects.jsonl"])

    def one_by_one() -> dict[str, Any]:
        out = folder / f"single{next(numbers)}"
        return _sum(
            [
                run(
                    [
                        *(sys.executable, SCRIPTS / "score.py", "--study", path, "--out", out / subject["subject"]),
                        *itertools.chain.from_iterable((f"--{key}", value) for key, value in subject.items()),
                    ]
                )
                for subject in subjects
            ]
        )

    def command() -> dict[str, Any]:
        out = folder / f"command{next(numbers)}"
        return _sum([run(lm_eval(path, subject, out / subject["subject"])) for subject in subjects])

    every_way = {"workflow": workflow, "one process": listed, "a process each": one_by_one, "lm_eval": command}
    taken = in_turn({way: every_way[way] for way in ways}, repeats=repeats)
    theirs = sorted(folder.glob("command*"))[0]
    return {
        "subjects": len(subjects),
        "taken": taken,
        "ratios": {
            f"lm_eval to {way}{what}": ratios(taken, "lm_eval", way, key=key)
            for way in ways
            for what, key in (("", "seconds"), (", CPU", "cpu_seconds"))
            if way != "lm_eval"
        },
        "peak_pss_mib": {way: spread([one["peak_pss_mib"] for one in times]) for way, times in taken.items()},
        "agreement": compare(results / "score", theirs),
    }


def list_subjects(path: Path, results: Path) -> list[dict[str, str]]:
    """The base and the runs of a study as `score.py --list` reads them, without their output folders."""

    from loragrid.study.study_file import load_study

    cells = load_study(str(path)).cells
    data = str(results / "data" / cells[0].data)
    trained = [{"subject": cell.run, "trained": str(results / "train" / cell.run)} for cell in cells]
    return [subject | {"data": data} for subject in ({"subject": cells[0].base}, *trained)]


def lm_eval(path: Path, subject: dict[str, str], out: Path) -> list[Any]:
    """lm-eval's own command line for a subject."""
    from loragrid.study.study_file import load_study

    study = load_study(str(path))
    entry, scoring = study.models[study.base_case.model], study.scoring
    arguments = [f"pretrained={entry.path}", "dtype=float32"]
    arguments += [f"peft={subject['trained']}/adapter"] if "trained" in subject else []
    command = [Path(sys.executable).with_name("lm_eval"), "run", "--model", "hf", "--model_args", *arguments]
    command += ["--tasks", ",".join(scoring.tasks)]
    command += ["--include_path", ROOT / "config" / "tasks", "--apply_chat_template", "--log_samples"]
    return [*command, "--limit", scoring.limit, "--batch_size", scoring.batch_size, "--device", "cpu", "-o", out]


def compare(ours: Path, theirs: Path) -> dict[str, Any]:
    """The number of item values that both ways have, how many differ, and the largest difference. The benchmark stops if an item
    is missing from one of them."""
    import pandas

    compared, different, largest = 0, 0, 0.0
    for folder in sorted(ours.iterdir()):
        table = pandas.read_parquet(folder / "items.parquet")
        items, seen = table.set_index(["task", "item", "metric"])["value"], set()
        for file in sorted((theirs / folder.name).rglob("samples_*.jsonl")):
            task = file.stem.removeprefix("samples_").rsplit("_", 1)[0]
            for sample in map(json.loads, file.read_text().splitlines()):
                seen.add((task, str(sample["doc_id"])))
                for metric in sample["metrics"]:
                    gap = abs(float(items[task, str(sample["doc_id"]), metric]) - float(sample[metric]))
                    compared, different, largest = compared + 1, different + (gap > 0), max(largest, gap)
        wanted = set(zip(table["task"], table["item"]))
        if seen != wanted or not seen:
            raise SystemExit(
                f"{folder.name}: {len(seen)} items of lm_eval's beside {len(wanted)} of ours: not the same"
            )
    return {"compared": compared, "different": different, "largest_difference": largest}


def _sum(parts: list[dict[str, float]]) -> dict[str, float]:
    total = {key: round(sum(part[key] for part in parts), 3) for key in ("seconds", "cpu_seconds")}
    return total | {"peak_pss_mib": max(part["peak_pss_mib"] for part in parts)}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="demo")
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20, help="updates of each adapter")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="with workflow and lm_eval among them")
    parser.add_argument("--out", type=Path, default=RESULTS / "scoring.json")
    options = parser.parse_args()
    if not {"workflow", "lm_eval"} <= set(options.ways):
        parser.error("--ways needs workflow and lm_eval, whose values are compared")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            options.study,
            adapters=options.adapters,
            steps=options.steps,
            repeats=options.repeats,
            folder=Path(folder),
            ways=options.ways,
        )
    write(options.out, found)


if __name__ == "__main__":
    main()
