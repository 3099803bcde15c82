"""Writes benchmarks/README.md from the JSON files in benchmarks/results: medians with least and most, nothing typed by hand.

python -m benchmarks.table
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.gpu_table import gpu_rows
from benchmarks.measuring import RESULTS
from benchmarks.table_rows import SECTIONS

README = Path(__file__).with_name("README.md")
HEAD = """# Measured side by side

Every line comes from a file in `results/`, written by the command beside it with machine, versions, commit and every repetition;
this page is made from them by `python -m benchmarks.table`. `make bench` measures everything that a machine without a GPU can.
Ratios are taken repetition by repetition: on a shared machine absolute seconds say little. *median (least to most)*.

| what | figure | goal | command |
|---|---|---|---|
"""
NOT_MEASURED = "not measured"
COMMANDS = {
    "certificate": "make certify",
    "real": "python -m benchmarks.real --model FOLDER --rows FILE --pairs FOLDER",
    "truth": "make truth",
    "warm": "python -m benchmarks.study --ways one cold --out benchmarks/results/warm.json",
}
GPU = ("train", "capped", "together", "resume", "scoring")


def table(results: Path) -> str:
    """The whole page."""
    lines, machines = [], {}
    for name, section in SECTIONS.items():
        command = COMMANDS.get(name, f"python -m benchmarks.{name}")
        file = results / f"{name}.json"
        if not file.exists():
            lines.append(f"| {name} | {NOT_MEASURED} | | `{command}` |")
            continue
        found = json.loads(file.read_text())
        lines += [f"| {what} | {figure} | {goal} | `{command}` |" for what, figure, goal in section(found)]
        machines[name] = _machine(found)
    for piece in GPU:
        command, file = f"python -m benchmarks.gpu {piece}", results / f"gpu_{piece}.json"
        found = json.loads(file.read_text()) if file.exists() else {"on": None}
        if found["on"] != "cuda":
            lines.append(f"| GPU: {piece} | {NOT_MEASURED} | | `{command}` |")
            continue
        lines += [f"| {what} | {figure} | {goal} | `{command}` |" for what, figure, goal in gpu_rows(found)]
        machines[f"gpu {piece}"] = _machine(found)
    outcome = "\n".join(f"- {name}: {machine}" for name, machine in machines.items())
    return HEAD + "\n".join(lines) + f"\n\n## On what\n\n{outcome}\n"


def _machine(found: dict[str, Any]) -> str:
    device, commit = found.get("device", {}), (found.get("git") or {}).get("commit")
    versions = found.get("versions", {})
    named = ", ".join(
        f"{name} {versions[name]}"
        for name in ("python", "torch", "transformers", "trl", "snakemake")
        if name in versions
    )
    load = f", load {found['load']:.1f} at the end" if "load" in found else ""
    return f"{device.get('name')} ({device.get('cpus')} cores){load}; {named}; commit {(commit or 'unknown')[:12]}"


def main() -> None:
    """Write the page."""
    README.write_text(table(RESULTS))


if __name__ == "__main__":
    main()
