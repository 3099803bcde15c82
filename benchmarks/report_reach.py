"""How compare and report scale: synthetic studies of up to 1,000 runs × 5 tasks × 200 items.

    python -m benchmarks.report_reach [--runs 10 100 1000] [--items 200] [--folder FOLDER] [--out FILE.json]

Measures seconds and peak memory of both stages, each in a process of its own, and the size of the page. Also measures how the
page of the largest study opens and scrolls in a headless Chromium that draws on the CPU: seconds to the load event and to the
first paint, and CPU seconds of all processes of the browser until the load event. This part is left out without playwright
and Chromium.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measuring import RESULTS, run, spread, write
from loragrid.paths import ROOT

RATES, RANKS, BATCHES = 10, [16, 4, 8, 32, 64], [[2, 4], [1, 1], [4, 4], [4, 8]]
CHROMIUM = Path("/usr/bin/chromium")
# A reader's mouse wheel: so many notches of so many pixels, one every 50 ms. Meanwhile the time between frames is measured.
NOTCHES, NOTCH_PX, NOTCH_MS = 120, 300, 50
LATE_FRAME_MS = 50  # a longer gap between frames is seen as a stutter
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"  # milliseconds
WATCH_FRAMES = """
window.frames_ms = [];
let before = null;
requestAnimationFrame(function tick(now) {
  if (before !== null) frames_ms.push(now - before);
  before = now;
  requestAnimationFrame(tick);
});
"""


def make_study(folder: Path, *, runs: int, items: int) -> Path:
    """Write a synthetic study with its results and return the study file. `runs`: a multiple of ten.

    The grid is learning rates × ranks × batches × seeds, with as many of each in turn as the number of runs needs.
    """
    from tests.fixtures import synthetic

    ranks = RANKS[: max(1, runs // RATES)]
    batches = BATCHES[: max(1, runs // (RATES * len(ranks)))]
    seeds = runs // (RATES * len(ranks) * len(batches))
    rates = [0.0005 * 2**power for power in range(RATES - 1)] + [0.01]
    study = synthetic.make_study(
        folder,
        title=f"{runs} made-up runs",
        grid={
            "design": "factorial",
            "axes": {
                "learning_rate": rates,
                "rank": ranks,
                "batch": batches,
                "model": ["llama-s"],
                "seed": list(range(1, seeds + 1)),
            },
        },
    )
    synthetic.make_results(study, folder / "results", items=items, prompts=20)
    return study.path


def measure(folder: Path, *, runs: int, items: int) -> dict[str, Any]:
    """Seconds, peak memory and page size of both stages on a synthetic study."""
    study = make_study(folder, runs=runs, items=items)
    results, page = folder / "results", folder / "reports" / "report.html"
    stage = [sys.executable, "", "--study", str(study), "--results", str(results), "--out"]
    found = {}
    for name, out in (("compare", results / "compare"), ("report", page)):
        stage[1] = str(ROOT / "scripts" / f"{name}.py")
        found[name] = run([*stage, str(out)])
    seconds = found["compare"]["seconds"] + found["report"]["seconds"]
    return found | {
        "runs": len(list((results / "train").iterdir())),
        "items": items,
        "seconds": round(seconds, 2),
        "page_mb": round(page.stat().st_size / 1e6, 2),
    }


def scroll(page: Path) -> dict[str, Any] | None:
    """Seconds until the page is open and painted, and milliseconds between frames while it scrolls with all details open.

    None without a browser.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if not CHROMIUM.exists():
        return None
    with sync_playwright() as playwright:
        # Without a GPU: the slowest machine that may open the page.
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=options)
        shown = browser.new_page(viewport={"width": 1280, "height": 800})
        cpu_before, began = _browser_cpu_seconds(), time.monotonic()
        shown.goto(page.as_uri(), wait_until="load")
        opened, cpu_after = time.monotonic() - began, _browser_cpu_seconds()
        shown.wait_for_function(f"() => {FIRST_PAINT} > 0")
        painted = shown.evaluate(FIRST_PAINT) / 1000
        shown.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        shown.mouse.move(640, 400)
        shown.evaluate(WATCH_FRAMES)
        for _ in range(NOTCHES):
            shown.mouse.wheel(0, NOTCH_PX)
            shown.wait_for_timeout(NOTCH_MS)
        frames, reached = shown.evaluate("[frames_ms, scrollY]")
        browser.close()
    late = sum(frame > LATE_FRAME_MS for frame in frames) / len(frames)
    return {
        "open_seconds": opened,
        "open_cpu_seconds": round(cpu_after - cpu_before, 3),
        "first_paint_seconds": painted,
        "scrolled_px": reached,
        "frame_ms": spread(frames),
        "share_over_50_ms": late,
    }


def _browser_cpu_seconds() -> float:
    """CPU seconds of all processes that this one has started and that are alive."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(time.user + time.system for time in times)


def main() -> None:
    """Map the command line to `measure` and `scroll`, and write their results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="folder for the studies, kept; temporary if left out")
    parser.add_argument("--out", type=Path, default=RESULTS / "report_reach.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        found = [measure(folder / f"runs{runs}", runs=runs, items=options.items) for runs in options.runs]
        scrolled = scroll(folder / f"runs{options.runs[-1]}" / "reports" / "report.html")
    write(options.out, {"compare_and_report": found, "scroll": scrolled})


if __name__ == "__main__":
    main()
