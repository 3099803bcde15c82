"""Real models and data on a CPU: training and a whole study by loragrid, and the same by TRL, PEFT and lm-eval alone.

    python -m benchmarks.real --model FOLDER --rows alpaca.json --pairs FOLDER [--threads 1 2] [--repeats 3]
                              [--parts training study] [--tokens 12000] [--heldout 80] [--items 200]
                              [--out FILE.json]

`--model` is a pretrained chat model in Hugging Face form, such as SmolLM2-135M-Instruct; `--rows` are rows of
`instruction`, `input` and `output`; `--pairs` is a folder with sets of BLiMP (`blimp_*.jsonl`), of which the first
three are scored. The study has two learning rates of `--tokens` each, the held-out loss of `--heldout` rows,
`--items` of each of the three sets and eight running plans of at most 256 tokens, which the model writes. Everything
else is as in `benchmarks.training` and `benchmarks.study`.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks import study as whole_study
from benchmarks import training
from benchmarks.measuring import RESULTS, spread, write
from loragrid.paths import ROOT

PARTS = ("training", "study")
SETS, PLANS = 3, 8
SHORT_PLANS: dict[str, Any] = {
    "include": str(ROOT / "config" / "tasks" / "running_plan_general" / "running_plan_general.yaml"),
    "task": "short_plans",
    "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 256},
}
PAIRS: dict[str, Any] = {
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "",
    "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
    "doc_to_target": 0,
    "target_delimiter": "",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def make_study(folder: Path, options: argparse.Namespace) -> Path:
    """The study file and its task files, in `folder`, for the last number of threads."""
    model, rows, pairs, threads = options.model, options.rows, options.pairs, options.threads[-1]
    sets = sorted(pairs.glob("blimp_*.jsonl"))[:SETS]
    if len(sets) < SETS:
        raise SystemExit(f"error: --pairs: fewer than {SETS} files blimp_*.jsonl in {pairs}. Fix: name their folder.")
    for file in sets:
        task = {"task": file.stem, **PAIRS, "dataset_kwargs": {"data_files": {"test": str(file.resolve())}}}
        (folder / f"{file.stem}.yaml").write_text(yaml.safe_dump(task))
    (folder / "short_plans.yaml").write_text(yaml.safe_dump(SHORT_PLANS))
    settings = {
        "title": "Which learning rate teaches a real model to answer as Alpaca does?",
        "data": {"alpaca": {"source": {"path": str(rows.resolve())}}},
        "heldout": {"rows": options.heldout},
        "models": {"real": {"path": str(model.resolve())}},
        "base_case": {
            "learning_rate": 1.0e-3,
            "budget": {"tokens": options.tokens},
            "warmup": {"steps": 2},
            "max_length_tokens": 512,
            "precision": "32bit",
            "compute_dtype": "fp32",
            "backend": "trl",
            "evaluations": 1,
            "threads": threads,
        },
        "grid": {"axes": {"learning_rate": [2.0e-4, 1.0e-3]}},
        "scoring": {
            "target": ["short_plans.yaml", "heldout_loss"],
            "retention": [f"{file.stem}.yaml" for file in sets],
            "limit": {"short_plans.yaml": PLANS, "others": options.items},
            "batch_size": 50,
            "threads": threads,
        },
        "compare": {"bootstrap_draws": 2000},
    }
    path = folder / "real.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def trained(study: Path, folder: Path, *, threads: int, repeats: int) -> dict[str, Any]:
    """Training by both, and the share of the rate of matrix products that loragrid's reaches.

    With eight held-out rows, because the updates are compared.
    """
    from loragrid.runtime.cpu_speed import measure_products

    settings = yaml.safe_load(study.read_text())
    settings["heldout"] = {"rows": 8}
    settings["base_case"]["threads"] = threads
    path = study.with_name(f"real_{threads}.yaml")
    path.write_text(yaml.safe_dump(settings))
    folder.mkdir()
    found = training.measure(str(path), tokens=None, repeats=repeats, folder=folder)
    products = measure_products(threads)
    reached = [one["tokens_per_second"] * operations_per_token(path) / 1e12 for one in found["taken"]["loragrid"]]
    return found | {"products_tflops": products, "share_of_products": spread([rate / products for rate in reached])}


def operations_per_token(study: Path) -> float:
    """Floating-point operations of training per token of the base case, rows of 128 tokens."""
    from loragrid.models.find_shape import find_shape
    from loragrid.models.flops import training_per_token
    from loragrid.models.trained_weights import Trainable
    from loragrid.study.study_file import load_study

    loaded = load_study(str(study))
    settings = loaded.base_case
    shape = find_shape(loaded.models[settings.model])
    trainable = Trainable(method="lora", rank=settings.rank, target_modules=settings.target_modules)
    return sum(training_per_token(shape, trainable, row_tokens=128, checkpointing=False).values())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="of the training; the study has the last"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tokens", type=int, default=12_000, help="of each run")
    parser.add_argument("--heldout", type=int, default=80, help="rows")
    parser.add_argument("--items", type=int, default=200, help="of each set")
    parser.add_argument("--out", type=Path, default=RESULTS / "real.json")
    options = parser.parse_args()
    sizes = {name: getattr(options, name) for name in ("tokens", "heldout", "items")}
    found: dict[str, Any] = {"model": options.model.name, **sizes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = make_study(folder, options)
        if "training" in options.parts:
            found["training"] = {
                str(count): trained(path, folder / str(count), threads=count, repeats=options.repeats)
                for count in options.threads
            }
        if "study" in options.parts:
            ways = ("one", "peer")
            found["study"] = whole_study.measure(str(path), repeats=options.repeats, folder=folder / "study", ways=ways)
    write(options.out, found)


if __name__ == "__main__":
    main()
