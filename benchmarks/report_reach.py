"""How far compare and report reach: a made-up study of 1,000 runs × 5 tasks × 200 items, timed in processes of their own.

    python benchmarks/report_reach.py [--runs 1000] [--items 200] [--folder FOLDER] [--out FILE.json]

Prints seconds and peak memory of both stages and the size of the page, and writes them as JSON with machine and versions.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measuring import RESULTS, ROOT, run, write

# learning rates × ranks × batches × seeds; runs beyond those asked for are left out as seeds
RATES, RANKS, BATCHES = 10, 5, 4


def make(folder: Path, *, runs: int, items: int) -> Path:
    """The made-up study and its results; returns the study file."""
    import synthetic

    seeds = max(1, runs // (RATES * RANKS * BATCHES))
    rates = [0.0005 * 2**power for power in range(RATES - 1)] + [0.01]
    study = synthetic.make_study(
        folder,
        title=f"{runs} made-up runs",
        grid={
            "design": "factorial" if runs >= RATES * RANKS * BATCHES else "one_factor",
            "learning_rate": rates,
            "rank": [4, 8, 16, 32, 64],
            "batch": [[2, 4], [1, 1], [4, 4], [4, 8]],
            "model": ["llama-s"],
            "seed": list(range(1, seeds + 1)),
        },
    )
    synthetic.make_results(study, folder / "results", items=items, prompts=20)
    return study.path


def measure(folder: Path, *, runs: int, items: int) -> dict:
    """Make the study, run both stages on it, and say what they took."""
    study = make(folder, runs=runs, items=items)
    results, page = folder / "results", folder / "reports" / "report.html"
    stage = [sys.executable, "", "--study", str(study), "--results", str(results), "--out"]
    found = {}
    for name, out in (("compare", results / "compare"), ("report", page)):
        stage[1] = str(ROOT / "scripts" / f"{name}.py")
        found[name] = run([*stage, str(out)])
    total = found["compare"]["seconds"] + found["report"]["seconds"]
    cells = len(list((results / "train").iterdir()))
    found |= {"runs": cells, "items": items, "seconds": round(total, 2), "page_mb": round(page.stat().st_size / 1e6, 2)}
    return found


def main() -> None:
    """Map the command line to `measure` and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where to make the study, kept; a temporary folder otherwise")
    parser.add_argument("--out", type=Path, default=RESULTS / "report_reach.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(options.folder or Path(temporary), runs=options.runs, items=options.items)
    write(options.out, found)
    print(json.dumps({key: found[key] for key in ("runs", "items", "compare", "report", "seconds", "page_mb")}))


if __name__ == "__main__":
    main()
