"""Made-up results of a study, with effects that are known: for tests of compare and report, and for the benchmark of their reach.

Everything goes through the real study file, grid and records; only the numbers are drawn, from a seed.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from study.durable import sha256_json
from study.grid import Cell, bases, data_sets, expand
from study.history import History
from study.records import RunRecord, ScoreRecord, Session, TaskScore, write_record
from study.study_file import Study, load_study
from study.task_result import COLUMNS

BATCH = [2, 4]
GIT = {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False}
DEVICE = {"host": "made-up", "name": "made-up CPU", "kind": "cpu", "cpus": 2, "vram_mib": None, "cuda": None}
VERSIONS = {"python": "3.11.2", "torch": "2.13.0", "peft": "0.21.2"}
# What a configuration says of a model of about 0.6 M parameters.
SHAPE = {
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
WHEN = "2026-01-02T03:04:05+00:00"


def make_study(folder: Path, *, title: str = "A made-up study", name: str = "made", **changes: Any) -> Study:
    """A study file (one factor: three learning rates, three ranks, two batches, two models); the models have no weights.

    `changes` replace keys of base_case, grid, scoring and compare by name, such as `grid={"seed": [1, 2]}`.
    """
    models = {}
    for key in ("llama-s", "gemma-s"):
        (folder / "models" / key).mkdir(parents=True, exist_ok=True)
        (folder / "models" / key / "config.json").write_text(json.dumps({"name": key} | SHAPE))
        models[key] = {"path": f"models/{key}", "precision": "32bit", "chat_template": None}
    demo = yaml.safe_load((Path(__file__).parents[1] / "config" / "studies" / "demo.yaml").read_text())
    settings = demo | {
        "title": title,
        "models": models,
        "base_case": {"model": "llama-s", "learning_rate": 0.01, "rank": 16, "batch": BATCH, "seed": 1},
        "grid": {
            "design": "one_factor",
            "learning_rate": [0.001, 0.01, 0.1],
            "rank": [4, 16, 64],
            "batch": [BATCH, [4, 8]],
            "model": list(models),
            "seed": [1],
        },
        "scoring": demo["scoring"] | {"qualitative": None},
    }
    for section, values in changes.items():
        settings[section] = settings[section] | values
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return load_study(str(path))


def ability(cell: Cell | None) -> dict[str, float]:
    """Chance of a right answer on the target and on retention, and the held-out loss: best at 1e-2, forgetful at 1e-1."""
    if cell is None:
        return {"target": 0.12, "retention": 0.70, "loss": 2.6}
    off = abs(math.log10(cell.learning_rate / 0.01))
    target = 0.72 - 0.35 * off
    return {"target": target, "retention": 0.68 - (0.3 if cell.learning_rate > 0.05 else 0.0), "loss": 1.1 + 0.5 * off}


def make_results(
    study: Study,
    results: Path,
    *,
    effect: Callable[[Cell | None], dict[str, float]] = ability,
    items: int = 100,
    seed: int = 0,
    faults: dict[str, str] | None = None,
    output: str = "a plan",
    prompts: int = 0,
    losses: bool = True,
    cluster_items: int = 1,
) -> None:
    """Records, losses, scores and data cards for every cell and base.

    `effect`: cell (None for a base) → chances and loss. `faults`: run → diverged, failed, paused, missing or unscored.
    `output`: text of every answer, `prompts`: number of prompts answered side by side. `cluster_items`: items of the lm-eval
    tasks that share a passage and, all else forgotten, their luck.
    """
    rng = np.random.default_rng(seed)
    faults = faults or {}
    tasks = {**dict.fromkeys(study.settings["scoring"]["target"], "target")}
    tasks |= dict.fromkeys(study.settings["scoring"]["retention"], "retention")
    difficulty = {task: rng.random(items) for task in tasks}
    options = {"output": output, "prompts": prompts, "cluster_items": cluster_items}
    for data in data_sets(study):
        write_card(results / "data" / data, data, items)
    for base, model in bases(study).items():
        write_score(study, results, base, None, model, base, effect(None), tasks, difficulty, rng, **options)
    for cell in expand(study):
        fault = faults.get(cell.run)
        folder = results / "train" / cell.run
        if fault == "missing":
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if fault == "failed":
            failure = {"schema": 1, "reason": "out of memory", "message": "needed 900 MiB"}
            (folder / "failure.json").write_text(json.dumps(failure))
            continue
        if fault == "paused":
            history, same = History(folder / "history.jsonl"), {"device": "a <card>", "fingerprint_sha256": "f"}
            history.start(step=0, seconds_before=0.0, **same)
            history.close_killed(last_step=9, last_seconds=50.0)
            history.start(step=5, seconds_before=30.0, **same)
            history.end(step=7, seconds=40.0, ended="SIGTERM")
            continue
        ability_of = effect(cell)
        write_run(study, folder, cell, ability_of, diverged=fault == "diverged", rng=rng, losses=losses)
        if fault not in ("diverged", "unscored"):
            names = (cell.run, cell, cell.model, cell.base)
            write_score(study, results, *names, ability_of, tasks, difficulty, rng, **options)


def write_card(folder: Path, data: str, items: int) -> None:
    """A data card."""
    folder.mkdir(parents=True, exist_ok=True)
    card = {
        "schema": 1,
        "data_id": data,
        "source": {"generator": "running_plans", "rows": 2400, "seed": 3407, "sha256": "ab" * 32},
        "format": "sharegpt",
        "rows_read": 2400,
        "rows_kept": 2380,
        "dropped": {"empty reply": {"count": 3, "first_rows": [4, 8, 15]}},
        "duplicates_removed": {"count": 17, "first_rows": [16, 23, 42, 99, 100]},
        "cut_after_last_reply": {"count": 6, "first_rows": [7]},
        "sampled_out": 21,
        "split": {
            "heldout_rows": items,
            "train_rows": 2260,
            "tied_by": "equal answers and equal prompts",
            "answer_groups": 2300,
            "largest_group": 3,
            "notes": [],
        },
        "tokens": {"train": 320000, "heldout": 16000, "train_loss": 250000, "heldout_loss": 12500},
        "length_histogram": {"edges": [0, 64, 128, 192, 256, 320, 384], "counts": [3, 400, 1200, 600, 150, 27]},
        "truncated": {"count": 5, "first_rows": [1, 2, 3, 5, 7]},
        "broken_characters": {"count": 2, "first_rows": [3, 4]},
        "notes": ["the template has no system turn"],
        "fingerprint": sha256_json([data, "train"]),
        "heldout_fingerprint": sha256_json([data, "heldout"]),
        "chat_template_sha256": "cd" * 32,
        "max_length_tokens": 384,
        "loss_on": "assistant",
    }
    (folder / "card.json").write_text(json.dumps(card))


def write_run(
    study: Study,
    folder: Path,
    cell: Cell,
    found: dict[str, float],
    *,
    diverged: bool,
    rng: np.random.Generator,
    losses: bool,
) -> None:
    """losses.csv and record.json of one run."""
    steps, batch = 120_000 // (140 * cell.batch[0] * cell.batch[1]), cell.batch[0] * cell.batch[1]
    if losses:
        (folder / "losses.csv").write_text(loss_table(steps, batch, found["loss"], rng, diverged))
    seconds = 14.0 + rng.random()
    record = RunRecord(
        study=study.name,
        run=cell.run,
        model=cell.model,
        settings=cell.identity,
        status="diverged" if diverged else "finished",
        reason="loss is NaN at step 12" if diverged else None,
        backend="trl",
        data_id=cell.data,
        data_fingerprint=sha256_json([cell.data, "train"]),
        train_rows=2260,
        heldout_rows=100,
        base_source=f"models/{cell.model}",
        base_commit=None,
        base_sha256="ef" * 32,
        losses_file="losses.csv",
        steps=12 if diverged else steps,
        planned_steps=steps,
        samples=steps * batch,
        tokens=steps * batch * 140,
        loss_tokens=steps * batch * 110,
        padding_share=0.18,
        train_seconds=seconds,
        tokens_per_second=steps * batch * 140 / seconds,
        peak_vram_mib=None,
        peak_rss_mib=700.0 + cell.rank,
        energy_joules=None,
        trainable_parameters=1200 * cell.rank,
        total_parameters=600_000,
        final_train_loss=None if diverged else found["loss"] - 0.05,
        first_heldout_loss=2.6,
        final_heldout_loss=None if diverged else found["loss"],
        sessions=(
            Session(start_step=0, end_step=steps, seconds=seconds, host="made-up", device="cpu", ended="finished"),
        ),
        versions=VERSIONS,
        git=GIT,
        device=DEVICE,
        code="c0de" * 4,
        adapter_sha256=None if diverged else sha256_json(cell.run),
        finished_at=WHEN,
    )
    write_record(folder / "record.json", record)


def loss_table(steps: int, batch: int, end: float, rng: np.random.Generator, diverged: bool) -> str:
    """losses.csv: an exponential way from 2.6 to `end`, noisy in training, measured on held-out rows every 20 steps."""
    lines = ["step,kind,loss,learning_rate,grad_norm,samples,tokens,loss_tokens,seconds"]
    for step in range(steps + 1):
        loss = end + (2.6 - end) * math.exp(-5 * step / steps)
        at = f"{step * batch},{step * batch * 140},{step * batch * 110},{step * 0.12:.2f}"
        if step:
            shown = "nan" if diverged and step >= 12 else f"{loss - 0.05 + 0.1 * rng.standard_normal():.5f}"
            lines.append(f"{step},train,{shown},0.01,1.0,{at}")
        if diverged and step >= 12:
            break
        if step % 20 == 0 or step == steps:
            lines.append(f"{step},heldout,{loss:.5f},,,{at}")
    return "\n".join(lines) + "\n"


def write_score(
    study: Study,
    results: Path,
    subject: str,
    cell: Cell | None,
    model: str,
    base: str,
    found: dict[str, float],
    tasks: dict[str, str],
    difficulty: dict[str, np.ndarray],
    rng: np.random.Generator,
    *,
    output: str,
    prompts: int,
    cluster_items: int,
) -> None:
    """items.parquet and score.json of one subject. Half of an item's luck is its difficulty, shared by all subjects."""
    columns: dict[str, list] = {name: [] for name in COLUMNS}
    scores = {}
    for task, group in tasks.items():
        n = len(difficulty[task])
        if task == "heldout_loss":
            values = found["loss"] + 0.4 * (difficulty[task] - 0.5) + 0.05 * rng.standard_normal(n)
            metrics = {"loss": values, "loss_tokens": np.round(80 + 60 * difficulty[task])}
            mean = float(np.average(values, weights=metrics["loss_tokens"]))
            summary = {"loss": {"value": mean, "stderr": 0.02, "higher_is_better": False}}
        else:
            luck = np.where(rng.random(n) < 0.5, difficulty[task], rng.random(n))
            luck = luck[np.arange(n) // cluster_items * cluster_items]
            values = (luck < found[group]).astype(float)
            metrics = {"acc": values}
            summary = {"acc": {"value": float(values.mean()), "stderr": 0.04, "higher_is_better": True}}
        alone = task == "heldout_loss" or cluster_items == 1
        for metric, numbers in metrics.items():
            columns["item"] += [str(i) for i in range(n)]
            columns["cluster"] += [""] * n if alone else [f"passage {i // cluster_items}" for i in range(n)]
            columns["value"] += numbers.tolist()
            for name, text in (("task", task), ("group", group), ("metric", metric), ("output", output)):
                columns[name] += [text] * n
            columns["prompt_sha256"] += [""] * n
        scores[task] = TaskScore(
            group=group,
            status="scored",
            reason=None,
            items=n,
            primary_metric=next(iter(metrics)),
            metrics=summary,
            seconds=1.0,
        )
    folder = results / "score" / subject
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "items.parquet")
    if prompts:
        answers = [answer_row(number, output, found["target"]) for number in range(prompts)]
        (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    record = ScoreRecord(
        study=study.name,
        subject=subject,
        kind="run" if cell else "base",
        model=model,
        base=base,
        status="scored",
        reason=None,
        adapter_sha256=sha256_json(subject) if cell else None,
        precision="32bit",
        chat_template_sha256="cd" * 32,
        tasks=scores,
        seconds=5.0,
        versions=VERSIONS,
        git=GIT,
        device=DEVICE,
        code="5c0e" * 4,
        finished_at=WHEN,
    )
    write_record(folder / "score.json", record)


def answer_row(number: int, output: str, ability_of: float) -> dict[str, Any]:
    """A line of answers.jsonl: the trained wording is answered a little better than the other one."""
    row: dict[str, Any] = {
        "id": f"plan-{number}",
        "reference": "Week 1\n```python\nrun(5)\n```\nrest",
        "reference_tokens": 12,
        "in_training": True,
    }
    for wording, better in (("prompt", 0.0), ("original", 0.05)):
        row[wording] = {
            "question": f"Write plan number {number}, {wording}",
            "error": None,
            "answer": output,
            "new_tokens": 40 + number,
            "stopped": True,
            "repetition": 0.05,
            "special_tokens": 0,
            "similarity": min(1.0, ability_of + better + 0.001 * number),
            "distinct_2": 0.9,
            "reference_log_likelihood": -2.0 + ability_of + better,
        }
    return row
