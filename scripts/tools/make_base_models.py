"""Pre-trains the demo's base models from seeds in about half an hour: `python scripts/tools/make_base_models.py`."""

if __name__ == "__main__":
    import check_environment  # noqa: F401  ends the process if packages are missing

import argparse
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from loragrid.demo.convergence import (
    HELDOUT_DOCUMENTS,
    LARGEST_ANSWER_LOSS,
    LAST_PROGRESS,
    MEASUREMENTS,
    last_part_of_fall,
)
from loragrid.demo.corpus import as_text, documents
from loragrid.demo.pretraining import CONTEXT_TOKENS, PretrainingRecipe, pretrain
from loragrid.demo.tokenizer import train_tokenizer
from loragrid.errors import UserError, run_main
from loragrid.paths import ROOT
from loragrid.runtime.atomic_files import atomic_folder, read_json, sha256_file, write_json, write_text
from loragrid.runtime.provenance import versions

MODELS = ROOT / "resources" / "models"
WORLD_SEED = 3407
TOKENIZER_SEED = 1
TOKENIZER_DOCUMENTS = 6000

RECIPES = {
    "llama-s": PretrainingRecipe(
        architecture="llama",
        config={
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        matrix_learning_rate=1e-2,
        learning_rate=4e-3,
        steps=1300,
        blocks_per_step=8,
        seed=11,
    ),
    "llama-m": PretrainingRecipe(
        architecture="llama",
        config={
            "hidden_size": 192,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
        },
        matrix_learning_rate=4e-3,
        learning_rate=4e-3,
        steps=1700,
        blocks_per_step=4,
        seed=12,
    ),
    "gemma-s": PretrainingRecipe(
        architecture="gemma3",
        config={
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 128,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
        matrix_learning_rate=1e-2,
        learning_rate=4e-3,
        steps=900,
        blocks_per_step=4,
        seed=13,
    ),
}

README = """\
# The demo's base models

Written by `scripts/tools/make_base_models.py` (`make base-models`), which rebuilds this folder from seeds; do not edit.

The demo study fine-tunes these three small causal language models. A plain PyTorch loop
(`scripts/loragrid/demo/pretraining.py`) pre-trained them in fp32 on one CPU thread, on text that
`scripts/loragrid/demo/corpus.py` generates: facts about invented places, sums, counting, lists, timetables, and
running-training plans. The plans match the requested race and level, but their weeks and days per week *ignore* the
request (for 8 weeks of 5 days, the models write 4 weeks of 3 days). The models share one byte-level BPE tokenizer and
chat template (`scripts/loragrid/demo/tokenizer.py`). No text or weights from elsewhere are used.

The weights are fp32 safetensors. `sha256sum --check SHA256SUMS` checks the files. A rebuild gives the same bits on the
same kind of CPU with the same versions. Elsewhere, rounding differs, and the models differ as much as two seeds do.

| model | architecture | parameters | steps | tokens | seconds | torch | transformers |
|---|---|--:|--:|--:|--:|---|---|
{rows}

Seconds are the wall-clock time of the training loop, its measurements included, on a busy core of a cloud machine.

## Has the pre-training converged?

![Held-out loss by step](loss.svg)

The held-out loss, in nats per token of {documents} documents that no model was trained on, at {points} of the
{measurements} measurements:

| model |{part_heads} last fifth of the steps |
|---|{part_rules}--:|
{curves}

The columns are parts of the steps. The last one is how much of the fall after warm-up came in the last fifth of the
steps. The loss does not approach 0, because nobody can predict which place a question asks about or what a plan leaves
open. The answers to questions about facts, sums and lists can be predicted. Their loss does approach 0:

| model |{part_heads}
|---|{part_rules}
{answers}

A model has converged when its last fifth is less than {limit:.0%} and its loss on answers is less than {answer_limit}
nats per token. It takes both, because a learning rate that falls to almost nothing flattens the end of any curve. The
rule is in `scripts/loragrid/demo/convergence.py`, and a test checks it on the files here.

`made.json` in each folder holds all measurements, figures and versions.
"""
# Measurements that the README shows, as indices; the first is after warm-up.
SHOWN = (1, 2, 3, 5, 7, 10, 13, 16, 18, 20)


def make_tokenizer() -> Any:
    """The tokenizer of all three models."""
    sample = islice(documents(seed=TOKENIZER_SEED, world_seed=WORLD_SEED), TOKENIZER_DOCUMENTS)
    return train_tokenizer(map(as_text, sample), max_length_tokens=CONTEXT_TOKENS)


def make_base_models(*, keys: list[str], steps: int | None, out: Path) -> None:
    """Pre-train the models named in `keys` into `out/<key>/`, then write checksums and README of all models in `out`.

    `steps` replaces the number of steps of every recipe. A finished model replaces its old folder atomically.
    """
    tokenizer = make_tokenizer()
    out.mkdir(parents=True, exist_ok=True)
    for key in keys:
        recipe = RECIPES[key] if steps is None else replace(RECIPES[key], steps=steps)
        model, figures = pretrain(recipe, tokenizer, world_seed=WORLD_SEED)
        _save(model, tokenizer, folder=out / key)
        made = {"parameters": model.num_parameters(), "steps": recipe.steps, **figures}
        write_json(out / key / "made.json", made | {"versions": versions()})
        print(f"{key}: {figures['seconds']:.0f} s, last {figures['curve'][-1]}", flush=True)
    write_checksums(out)
    write_readme(out)


def write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` of every file of every model under `folder`, in the format of `sha256sum --check`."""
    # made.json holds seconds and library versions, which differ between rebuilds.
    files = sorted(path for path in folder.glob("*/*") if path.is_file() and path.name != "made.json")
    write_text(folder / "SHA256SUMS", "".join(f"{sha256_file(path)}  {path.relative_to(folder)}\n" for path in files))


def write_readme(folder: Path) -> None:
    """Write `README.md` and `loss.svg` about the models under `folder`, from the `made.json` of each."""
    paths = {key: folder / key / "made.json" for key in RECIPES}
    made = {key: read_json(path) for key, path in paths.items() if path.is_file()}
    text = README.format(
        rows="\n".join(_figures_row(key, figures) for key, figures in made.items()),
        documents=HELDOUT_DOCUMENTS,
        points=len(SHOWN),
        measurements=MEASUREMENTS,
        limit=LAST_PROGRESS,
        answer_limit=LARGEST_ANSWER_LOSS,
        part_heads="".join(f" {index / MEASUREMENTS:.0%} |" for index in SHOWN),
        part_rules="--:|" * len(SHOWN),
        curves="\n".join(_curve_row(key, figures) for key, figures in made.items()),
        answers="\n".join(_losses_row(key, figures, "answer_loss") for key, figures in made.items()),
    )
    write_text(folder / "README.md", text)
    draw_curves({key: figures["curve"] for key, figures in made.items()}, folder / "loss.svg")


def draw_curves(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw the held-out loss of each model by step, without the untrained one's, as an SVG of a few kB."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # The same curves give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "loragrid", "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
        for key, curve in curves.items():
            trained = curve[1:]
            axes.plot([point["step"] for point in trained], [point["heldout_loss"] for point in trained], label=key)
        axes.set(xlabel="step", ylabel="held-out loss, nats per token")
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def _figures_row(key: str, made: dict[str, Any]) -> str:
    cells = (
        key,
        RECIPES[key].architecture,
        f"{made['parameters']:,}",
        f"{made['steps']:,}",
        f"{made['tokens']:,}",
        f"{made['seconds']:.0f}",
        made["versions"]["torch"],
        made["versions"]["transformers"],
    )
    return f"| {' | '.join(cells)} |"


def _losses_row(key: str, made: dict[str, Any], loss: str) -> str:
    curve = made["curve"]
    # A shortened pre-training has fewer steps than measurements.
    shown = [curve[min(index, len(curve) - 1)] for index in SHOWN]
    return f"| {key} |" + "".join(f" {point[loss]:.3f} |" for point in shown)


def _curve_row(key: str, made: dict[str, Any]) -> str:
    last = last_part_of_fall(made["curve"], warmup_steps=made["warmup_steps"])
    return f"{_losses_row(key, made, 'heldout_loss')} {last:.1%} |"


def _save(model: Any, tokenizer: Any, *, folder: Path) -> None:
    with atomic_folder(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)


def main() -> None:
    """Map the command line to `make_base_models`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=RECIPES, action="append", help="pre-train only this model; may be repeated")
    parser.add_argument("--steps", type=int, help="optimizer steps of every model, instead of its recipe's")
    parser.add_argument("--out", type=Path, default=MODELS, help="folder to write one folder per model to")
    arguments = parser.parse_args()
    if arguments.steps is not None and arguments.steps < 1:
        raise UserError(f"--steps: no number of optimizer steps ({arguments.steps}). Fix: give 1 or more.")
    make_base_models(keys=arguments.only or list(RECIPES), steps=arguments.steps, out=arguments.out)


if __name__ == "__main__":
    run_main(main)
