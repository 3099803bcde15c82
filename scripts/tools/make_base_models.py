"""Pre-trains the demo's base models from seeds in about 15 minutes: `python scripts/tools/make_base_models.py`."""

import argparse
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

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
        learning_rate=4e-3,
        steps=1600,
        seed=11,
    ),
    "llama-m": PretrainingRecipe(
        architecture="llama",
        config={
            "hidden_size": 192,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
        },
        learning_rate=3e-3,
        steps=1200,
        seed=12,
    ),
    "gemma-s": PretrainingRecipe(
        architecture="gemma3",
        config={
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 128,
            "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
        },
        learning_rate=4e-3,
        steps=1500,
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

| model | architecture | parameters | steps | tokens | first loss | last loss | seconds | torch | transformers |
|---|---|--:|--:|--:|--:|--:|--:|---|---|
{rows}

Losses are means over all tokens of the first and of the last 20 steps, in nats per token. Seconds are the wall-clock
time of the training loop on a shared core of a cloud machine. `made.json` in each folder holds these figures and all
versions.
"""


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
        print(f"{key}: {made}", flush=True)
    write_checksums(out)
    write_readme(out)


def write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` of every file of every model under `folder`, in the format of `sha256sum --check`."""
    # made.json holds seconds and library versions, which differ between rebuilds.
    files = sorted(path for path in folder.glob("*/*") if path.is_file() and path.name != "made.json")
    write_text(folder / "SHA256SUMS", "".join(f"{sha256_file(path)}  {path.relative_to(folder)}\n" for path in files))


def write_readme(folder: Path) -> None:
    """Write `README.md` about the models under `folder`, from the `made.json` of each."""
    rows = []
    for key, recipe in RECIPES.items():
        if not (folder / key / "made.json").is_file():
            continue
        made = read_json(folder / key / "made.json")
        rows.append(
            f"| {key} | {recipe.architecture} | {made['parameters']:,} | {made['steps']:,} | {made['tokens']:,} | "
            f"{made['first_loss']:.3f} | {made['last_loss']:.3f} | {made['seconds']:.0f} | "
            f"{made['versions']['torch']} | {made['versions']['transformers']} |"
        )
    write_text(folder / "README.md", README.format(rows="\n".join(rows)))


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
