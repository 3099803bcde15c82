"""The peer: a study's base case trained by TRL and PEFT alone on the rows of prepare_data.

    python -m benchmarks.training_peer --study FILE --data FOLDER --out FOLDER

Writes the adapter and outcome.json: train_seconds (the loop with its evaluations and checkpoints), loss_tokens, steps.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.study_peer import study_trainer


def train(study_path: str, data: Path, out: Path) -> dict[str, float]:
    """Train, save, and return the time it took."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer

    from loragrid.study.study_file import load_study

    study = load_study(study_path)
    cell = study.cells[0]
    torch.set_num_threads(cell.settings.threads)
    rows = [Dataset.from_parquet(str(data / f"{name}.parquet"), cache_dir=str(out)) for name in ("train", "heldout")]
    rows = [part.select_columns(["input_ids", "labels"]) for part in rows]
    tokenizer = AutoTokenizer.from_pretrained(study.models[cell.model].path)
    trainer = study_trainer(study, cell, out, rows=tuple(rows), tokenizer=tokenizer, adapters=True)
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    trainer.save_model(str(out / "adapter"))
    return {
        "train_seconds": seconds,
        "loss_tokens": _loss_tokens(trainer),
        "steps": trainer.state.global_step,
    }


def _loss_tokens(trainer: Any) -> int:
    """Tokens with loss in as many batches as were trained on. Drawn again, so in another order; the number is about the same."""
    wanted = trainer.args.max_steps * trainer.args.gradient_accumulation_steps
    batches = itertools.chain.from_iterable(trainer.get_train_dataloader() for _ in itertools.count())
    return sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in itertools.islice(batches, wanted))


def main() -> None:
    """Map the command line to `train`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    outcome = train(options.study, options.data, options.out)
    (options.out / "outcome.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
