"""Writes the items that the demo's models are scored on, and its rephrased prompts: `python scripts/tools/make_demo_tasks.py`."""

import argparse
import json
import random
from dataclasses import asdict, replace
from pathlib import Path

from loragrid.demo.plans import EVALUATION_DETAILS, EVALUATION_WORDINGS, LONG_RUN_DAYS, ask, draw_rows, requests
from loragrid.demo.world import Item, draw_sum, fact_item, list_item, make_facts, sum_item
from loragrid.errors import run_main
from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import write_text

CONFIG = ROOT / "config"
SEED = 3407
WORLD_SEED = 3407
ITEMS = 100
PROMPTS = 24
# The data of config/studies/demo.yaml, whose prompts are rephrased.
DATA_ROWS = 2400
DATA_SEED = 3407


def make_tasks(*, out: Path, seed: int, items: int) -> None:
    """Write `out/tasks/demo/{task}.jsonl` with `items` items each, and `out/prompts/demo.jsonl`. Same seed, same bytes."""
    tasks = {
        "running_plan": plan_items(items=items, seed=seed),
        "world_facts": fact_items(items=items, seed=seed),
        "world_sums": sum_items(items=items, seed=seed),
        "world_lists": list_items(items=items, seed=seed),
    }
    for name, rows in tasks.items():
        write_rows(out / "tasks" / "demo" / f"{name}.jsonl", rows)
    write_rows(out / "prompts" / "demo.jsonl", rephrased_prompts(prompts=PROMPTS, seed=seed))


def plan_items(*, items: int, seed: int) -> list[dict]:
    """Requests for plans in combinations and wordings that the fine-tuning data does not hold; all prompts differ."""
    rng = random.Random(f"plan items {seed}")
    combinations = requests(evaluation=True)
    rows: dict[str, dict] = {}
    while len(rows) < items:
        # Every combination comes before any comes again.
        request = replace(combinations[len(rows) % len(combinations)], long_run_day=rng.choice((None, *LONG_RUN_DAYS)))
        prompt = ask(
            request, rng.choice(EVALUATION_WORDINGS), rng.choice(EVALUATION_DETAILS), words=rng.random() < 0.25
        )
        if prompt not in rows:
            rows[prompt] = {"id": f"plan-{len(rows):03d}", "prompt": prompt, **asdict(request)}
    return list(rows.values())


def fact_items(*, items: int, seed: int) -> list[dict]:
    """Facts of the world, none twice."""
    rng = random.Random(f"fact items {seed}")
    return [
        _choices(f"fact-{i:03d}", fact_item(fact, rng), rng)
        for i, fact in enumerate(rng.sample(make_facts(WORLD_SEED), items))
    ]


def sum_items(*, items: int, seed: int) -> list[dict]:
    """Sums, none twice."""
    rng = random.Random(f"sum items {seed}")
    sums: dict[tuple[int, int], None] = {}
    while len(sums) < items:
        sums[draw_sum(rng)] = None
    return [_choices(f"sum-{i:03d}", sum_item(a, b, rng), rng) for i, (a, b) in enumerate(sums)]


def list_items(*, items: int, seed: int) -> list[dict]:
    """Counting and list exercises, none twice."""
    rng = random.Random(f"list items {seed}")
    exercises: dict[str, Item] = {}
    while len(exercises) < items:
        item = list_item(rng)
        exercises[item.question] = item
    return [_choices(f"list-{i:03d}", item, rng) for i, item in enumerate(exercises.values())]


def rephrased_prompts(*, prompts: int, seed: int) -> list[dict]:
    """Prompts of the fine-tuning data said in an evaluation wording, each with its row's own prompt and answer."""
    rng = random.Random(f"prompts {seed}")
    rows = draw_rows(DATA_ROWS, DATA_SEED)
    rephrased = []
    for i, row in enumerate(rng.sample(range(DATA_ROWS), prompts)):
        request, original, reference = rows[row]
        prompt = ask(request, EVALUATION_WORDINGS[i % len(EVALUATION_WORDINGS)], rng.choice(EVALUATION_DETAILS))
        rephrased.append({"id": f"plan-{row:04d}", "prompt": prompt, "original": original, "reference": reference})
    return rephrased


def write_rows(path: Path, rows: list[dict]) -> None:
    """One JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _choices(key: str, item: Item, rng: random.Random) -> dict:
    choices = rng.sample([item.answer, *item.wrong], 1 + len(item.wrong))
    return {"id": key, "question": item.question, "choices": choices, "label": choices.index(item.answer)}


def main() -> None:
    """Read the command line and write the items."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=CONFIG, help="configuration folder that gets tasks/demo and prompts"
    )
    make_tasks(out=parser.parse_args().out, seed=SEED, items=ITEMS)


if __name__ == "__main__":
    run_main(main)
