"""The peer: a study's cells as one would train and score them with TRL, PEFT and lm-eval alone, in one process.

    python -m benchmarks.study_peer --study STUDY --out FOLDER [--subject SUBJECT | --list]

The list of cells and the rows come from loragrid. Everything else is the libraries' own: SFTTrainer with its evaluation and
checkpoints, lm-eval's `simple_evaluate`, `generate` for the study's prompts. Writes adapters, losses and scores.
"""

import argparse
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.plain_trl import PlainRun, make_trainer
from loragrid.paths import ROOT


def tokenised(study: Any, tokenizer: Any) -> tuple[Any, Any]:
    """Training and held-out rows, shuffled; loss on the answers."""
    import tempfile

    from datasets import Dataset

    from loragrid.data.reading.sources import open_source

    with tempfile.TemporaryDirectory() as folder:
        source = open_source(study.data[study.base_case.data].source, folder=Path(folder))
        chats = [_exchange(row) for _, row in source.rows()]
    random.Random(study.heldout.seed).shuffle(chats)
    rows = []
    for question, answer in chats:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        prompt = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
        asked = len(tokenizer(prompt, add_special_tokens=False).input_ids)
        ids = tokenizer(whole, add_special_tokens=False).input_ids[: study.base_case.max_length_tokens]
        rows.append({"input_ids": ids, "labels": [-100] * asked + ids[asked:]})
    heldout = study.heldout.rows
    return Dataset.from_list(rows[heldout:]), Dataset.from_list(rows[:heldout])


def _exchange(row: dict[str, Any]) -> list[str]:
    """Question and answer of a row, a conversation of two turns or an instruction with its output."""
    if "conversations" in row:
        return [turn["value"] for turn in row["conversations"]]
    return ["\n\n".join(filter(None, (row["instruction"], row["input"]))), row["output"]]


def study_trainer(study: Any, cell: Any, folder: Path, *, rows: tuple[Any, Any], tokenizer: Any, adapters: bool) -> Any:
    """TRL's trainer with the cell's settings, its budget, evaluations and checkpoints."""
    settings, training = cell.settings, study.training
    train, _ = rows
    mean_tokens = sum(map(len, train["input_ids"])) / len(train)
    budget = settings.budget
    steps = budget.steps or round(budget.tokens / (mean_tokens * settings.per_device * settings.accumulation))
    run = PlainRun(
        study,
        cell,
        folder,
        rows=rows,
        tokenizer=tokenizer,
        steps=steps,
        adapters=adapters,
    )
    return make_trainer(
        run,
        per_device_eval_batch_size=16,
        eval_strategy="steps",
        eval_steps=max(1, round(steps / settings.evaluations)),
        eval_on_start=True,
        save_strategy="steps",
        save_steps=training.save_steps,
        save_total_limit=training.keep_checkpoints,
    )


@cache
def task_manager(folder: Path) -> Any:
    """lm-eval's index of its tasks, ours and those in `folder`, cached because building it takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=[str(ROOT / "config" / "tasks"), str(folder)])


def score(study: Any, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Every lm-eval task of the study, items logged."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from loragrid.study.sections import HELDOUT_LOSS
    from loragrid.study.tasks import item_limit

    scoring = study.scoring
    by_limit: dict[int | None, list[str]] = {}
    for task in scoring.tasks:
        if task != HELDOUT_LOSS:
            # A task file of the study is called by its stem.
            by_limit.setdefault(item_limit(scoring.limit, task), []).append(Path(task).stem)
    scored: dict[str, Any] = {"results": {}, "samples": {}}
    for limit, tasks in by_limit.items():
        found = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=scoring.batch_size, device="cpu"),
            tasks=tasks,
            task_manager=task_manager(study.path.parent),
            limit=limit,
            apply_chat_template=True,
            log_samples=True,
        )
        for part, values in scored.items():
            values |= found[part]
    return scored


def answers(study: Any, model: Any, tokenizer: Any) -> list[str]:
    """Greedy answers to both wordings of the study's prompts."""
    import torch

    if not study.scoring.qualitative:
        return []
    lines = [json.loads(line) for line in Path(study.scoring.qualitative).read_text().splitlines()]
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": line[wording]}], tokenize=False, add_generation_prompt=True
        )
        for line in lines
        for wording in ("prompt", "original")
    ]
    most = max(len(tokenizer(line["reference"]).input_ids) for line in lines)
    tokenizer.padding_side = "left"
    said = []
    for start in range(0, len(texts), study.scoring.batch_size):
        batch = texts[start : start + study.scoring.batch_size]
        inputs = tokenizer(batch, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            ids = model.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                max_new_tokens=2 * most + 16,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        said += tokenizer.batch_decode(ids[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return said


def do_subject(study: Any, cell: Any, out: Path, *, train: bool, cache: dict[str, Any]) -> None:
    """Train a cell, or take its untrained base, and score it."""
    from transformers import AutoTokenizer

    if cell.model not in cache:
        tokenizer = AutoTokenizer.from_pretrained(study.models[cell.model].path)
        cache[cell.model] = (tokenizer, tokenised(study, tokenizer))
    tokenizer, rows = cache[cell.model]
    trainer = study_trainer(study, cell, out, rows=rows, tokenizer=tokenizer, adapters=train)
    if train:
        trainer.train()
        trainer.save_model(str(out / "adapter"))
    loss = trainer.evaluate()["eval_loss"]
    model = trainer.model.eval()
    found = {"heldout_loss": loss, "losses": trainer.state.log_history, "answers": answers(study, model, tokenizer)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "scores.json").write_text(json.dumps(found | score(study, model, tokenizer), default=str))
    print(f"{out.name}: held-out loss {loss:.4f}")


def main() -> None:
    """Map the command line to `do_subject`."""
    import torch

    from loragrid.study.study_file import load_study

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--subject")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    study = load_study(options.study)
    cells = study.cells
    torch.set_num_threads(study.base_case.threads)
    # A base is any cell of its model left untrained.
    subjects = {cell.base: (cell, False) for cell in reversed(cells)} | {cell.run: (cell, True) for cell in cells}
    if options.list:
        print("\n".join(subjects))
        return
    cache: dict[str, Any] = {}
    for name in [options.subject] if options.subject else subjects:
        cell, train = subjects[name]
        do_subject(study, cell, options.out / name, train=train, cache=cache)


if __name__ == "__main__":
    main()
