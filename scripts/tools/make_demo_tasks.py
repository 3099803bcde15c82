"""Writes the demo's scoring items and rephrased prompts: `python
scripts/tools/make_demo_tasks.py`."""

if __name__ == "__main__":
    import check_environment  # noqa: F401  ends the process if packages are missing

import argparse
import json
import random
from dataclasses import asdict, replace
from pathlib import Path

from loragrid.demo.running_plans import (
    EVALUATION_DETAILS,
    EVALUATION_WORDINGS,
    LONG_RUN_DAYS,
    draw_rows,
    request_combinations,
    write_prompt,
)
from loragrid.demo.world import Item, draw_sum, fact_item, list_item, make_facts, sum_item
from loragrid.errors import run_main
from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import write_text

CONFIG = ROOT / "config"
SEED = 3407
WORLD_SEED = 3407
ITEMS = 100
PROMPTS = 20
# The data set of config/studies/demo.yaml; its prompts are rephrased.
DATA_ROWS = 2400
DATA_SEED = 3407


def make_tasks(*, out: Path, seed: int, items: int) -> None:
    """Write `items` items to each `out/tasks/demo/{task}.jsonl`, and `out/prompts/demo.jsonl`. Same
    seed, same bytes."""
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
    """Requests for running plans in combinations and wordings that the fine-tuning data lacks; all
    prompts differ."""
    rng = random.Random(f"plan items {seed}")
    combinations = request_combinations(evaluation=True)
    rows: dict[str, dict] = {}
    while len(rows) < items:
        # Cycle through the combinations: none repeats before all have been used.
        request = replace(combinations[len(rows) % len(combinations)], long_run_day=rng.choice((None, *LONG_RUN_DAYS)))
        prompt = write_prompt(
            request, rng.choice(EVALUATION_WORDINGS), rng.choice(EVALUATION_DETAILS), words=rng.random() < 0.25
        )
        if prompt not in rows:
            # What is scored is whether weeks and days are right, so items that ask for the same are one cluster.
            asked = f"{request.weeks} weeks, {request.days_per_week} days"
            rows[prompt] = {"id": f"plan-{len(rows):03d}", "prompt": prompt, **asdict(request), "asked": asked}
    return list(rows.values())


def fact_items(*, items: int, seed: int) -> list[dict]:
    """Multiple-choice items about distinct facts of the world."""
    rng = random.Random(f"fact items {seed}")
    facts = rng.sample(make_facts(WORLD_SEED), items)
    return [_multiple_choice(f"fact-{i:03d}", fact_item(fact, rng), rng) for i, fact in enumerate(facts)]


def sum_items(*, items: int, seed: int) -> list[dict]:
    """Multiple-choice items with distinct sums."""
    rng = random.Random(f"sum items {seed}")
    sums: dict[tuple[int, int], None] = {}
    while len(sums) < items:
        sums[draw_sum(rng)] = None
    return [_multiple_choice(f"sum-{i:03d}", sum_item(a, b, rng), rng) for i, (a, b) in enumerate(sums)]


def list_items(*, items: int, seed: int) -> list[dict]:
    """Multiple-choice items with distinct counting and list exercises."""
    rng = random.Random(f"list items {seed}")
    exercises: dict[str, Item] = {}
    while len(exercises) < items:
        item = list_item(rng)
        exercises[item.question] = item
    return [_multiple_choice(f"list-{i:03d}", item, rng) for i, item in enumerate(exercises.values())]


def rephrased_prompts(*, prompts: int, seed: int) -> list[dict]:
    """Prompts of the fine-tuning data in an evaluation wording, each with its row's original prompt
    and answer."""
    rng = random.Random(f"prompts {seed}")
    rows = draw_rows(DATA_ROWS, DATA_SEED)
    rephrased = []
    for i, row in enumerate(rng.sample(range(DATA_ROWS), prompts)):
        request, original, reference = rows[row]
        prompt = write_prompt(
            request, EVALUATION_WORDINGS[i % len(EVALUATION_WORDINGS)], rng.choice(EVALUATION_DETAILS)
        )
        rephrased.append({"id": f"plan-{row:04d}", "prompt": prompt, "original": original, "reference": reference})
    return rephrased


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write `rows` as JSON lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _multiple_choice(key: str, item: Item, rng: random.Random) -> dict:
    choices = rng.sample([item.answer, *item.wrong], 1 + len(item.wrong))
    return {"id": key, "question": item.question, "choices": choices, "label": choices.index(item.answer)}


def main() -> None:
    """Map the command line to `make_tasks`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=CONFIG, help="configuration folder to write tasks/demo and prompts to"
    )
    make_tasks(out=parser.parse_args().out, seed=SEED, items=ITEMS)


if __name__ == "__main__":
    run_main(main)
