"""The t4 studies: their settings, their prompts, and the running-plan task for any chat model."""

from collections import Counter
from pathlib import Path

import pytest

from loragrid.scoring.prompts import read_prompts
from loragrid.study.study_file import load_study
from loragrid.study.tasks import scoring_digest


def test_the_study_has_the_settings_of_the_original() -> None:
    study = load_study("t4")
    wanted = {
        "model": "llama-1b",
        "method": "lora",
        "learning_rate": 2.0e-4,
        "rank": 16,
        "alpha": 16,
        "dropout": 0.0,
        "target_modules": "all-linear",
        "batch": (2, 4),
        "seed": 3407,
        "weight_decay": 0.01,
        "schedule": "linear",
        "optimizer": "adamw_8bit",
        "packing": False,
        "loss_on": "assistant",
        "max_length_tokens": 2048,
        "precision": "4bit",
        "compute_dtype": "auto",
        "backend": "auto",
    }
    assert {key: getattr(study.base_case, key) for key in wanted} == wanted
    assert study.base_case.warmup.steps == 5
    axes = {
        # Llama-3.2-3B and rank 32 are left out: three seeds of every arm must fit into ten hours.
        "model": ("llama-1b", "gemma-270m"),
        "learning_rate": (2.0e-5, 2.0e-4, 2.0e-3),
        "rank": (16, 64),
        "batch": ((2, 4), (4, 8)),
        # Beyond the original: does twice the scale help, and does attention alone suffice?
        "alpha": ("rank", "2 * rank"),
        "target_modules": ("all-linear", "attention"),
        # Beyond it, too: the original had one seed, from which nothing follows about a setting.
        "seed": (3407, 1, 2),
    }
    assert study.grid.design == "one_factor" and dict(study.grid.axes) == axes
    models = {"Llama-3.2-1B-Instruct", "Llama-3.2-3B-Instruct", "gemma-3-270m-it"}
    assert {entry.hub for entry in study.models.values()} == {f"unsloth/{name}" for name in models}
    (source,) = (entry.source for entry in study.data.values())
    assert (source.hub, source.revision, source.split) == ("mlabonne/FineTome-100k", "main", "train")
    assert study.heldout.seed == 3407
    assert (study.training.save_steps, study.training.save_minutes, study.training.keep_checkpoints) == (250, 10, 2)
    assert study.scoring.target == ("ifeval", "running_plan_general", "rephrased_prompts", "heldout_loss")
    assert study.scoring.retention == ("hellaswag", "arc_challenge", "winogrande")


def test_every_prefix_of_the_cells_is_balanced() -> None:
    """The base case, then for every axis one end, then the other: no axis is two values ahead of another.

    The base case's further seeds follow, and then all arms again under the next seed.
    """
    cells = load_study("t4").cells
    assert cells[0].departs == {}
    first = [cell for cell in cells if cell.settings.seed == 3407]
    assert cells[: len(first)] == tuple(first)
    seeds = [cell.settings.seed for cell in cells[len(first) :]]
    assert seeds == [3, 4] + [1] * len(first) + [2] * len(first)
    for stop in range(1, len(first) + 1):
        seen = Counter(axis for cell in first[1:stop] for axis in cell.departs)
        values = {"learning_rate": 2, "rank": 1, "batch": 1, "model": 1, "alpha": 1, "target_modules": 1}
        open_axes = [seen[axis] for axis, most in values.items() if seen[axis] < most]
        assert not open_axes or max(seen.values(), default=0) - min(open_axes) <= 1
    assert cells[2].settings.learning_rate == 2.0e-5 and cells[3].settings.rank == 64


def test_the_short_study_shares_the_settings_of_the_long_one() -> None:
    long, short = load_study("t4"), load_study("t4_short")
    different = {"budget", "evaluations"}
    one, other = (vars(study.base_case) for study in (long, short))
    assert {key for key in one if one[key] != other[key]} <= different
    assert short.models["llama-1b"] == long.models["llama-1b"]


def test_the_prompts_are_rephrased() -> None:
    prompts = read_prompts(Path(load_study("t4").scoring.qualitative))
    assert len(prompts) >= 20
    assert "Explain how a ternary operator functions within a recursive method." in {p.prompt for p in prompts}
    assert all(p.prompt != p.original for p in prompts)


def test_every_task_is_known() -> None:
    for name in ("t4", "t4_short"):
        assert len(scoring_digest(load_study(name))) == 64


def test_the_running_plan_task_reads_plans_of_any_layout() -> None:
    from loragrid.scoring.lm_eval_tasks import find_tasks

    found = find_tasks(["running_plan_general"], limit={"running_plan_general": 16, "others": 3})[
        "running_plan_general"
    ]
    assert found.limit == 16
    task = found.loaded["tasks"]["running_plan_general"]
    items = list(task.eval_docs)
    assert len(items) == len({item["prompt"] for item in items}) == 48
    assert {item["weeks"] for item in items} == {2, 3, 4, 5, 6}
    for item in items:
        assert item["race"].casefold() in item["prompt"].casefold()
        days = ["Monday", "Tuesday", "Thursday", "Saturday", "Sunday"][: item["days_per_week"]]
        weeks = [
            f"**Week {w}**\n" + "\n".join(f"- {day}: easy run, {w + 3} km" for day in days)
            for w in range(1, item["weeks"] + 1)
        ]
        plan = f"## Your {item['race']} plan\n\n" + "\n\n".join(weeks)
        assert task.process_results(item, [plan])["exact"] == 1.0, plan
        assert task.process_results(item, [plan.replace(weeks[-1], "")])["weeks_right"] == 0.0
    assert task.process_results(items[0], ["Run often."]) == pytest.approx(
        {"exact": 0.0, "weeks_right": 0.0, "days_right": 0.0, "race_named": 0.0}
    )
