"""Compares the plan with what public runs printed and writes the tables of docs/plan.md.

python -m benchmarks.published
"""

import csv
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from loragrid.models.flops import training_per_token
from loragrid.models.shape import Shape
from loragrid.models.trained_weights import Trainable
from loragrid.paths import ROOT
from loragrid.planning.gpu_cards import FP32_SHARE, read_cards
from loragrid.planning.memory_model import FRAGMENTATION, MIB, Memory, TrainingSetup, training_memory
from loragrid.planning.step_time import LAUNCH_SECONDS, Rate, operations_per_pass, training_seconds

RUNS = Path(__file__).with_name("published_runs.csv")
PAGE = ROOT / "docs" / "plan.md"
CARDS = {"T4": "T4", "A100-40": "A100-40GB", "A100-80": "A100-80GB"}
# NVIDIA A10G: 70 TFLOPS in 16 bits (data sheet); not in config/cards.yaml.
A10G_TFLOPS = 70
UPDATES = 60  # of each notebook


@dataclass(frozen=True)
class Rows:
    """Rows of a data set: tokens of the mean one, padding to the longest of its batch included, and of the longest."""

    mean: float | None
    longest: int | None
    from_run: str


# A mean is known only from times: `from_run` names the runs that it was fitted to, which check nothing. FineTome's mean
# is this project's assumption, on which the cards' rates rest. None of `longest`: rows are cut at the run's limit.
DATA = {
    "FineTome": Rows(550, None, "1B FineTome, 3B FineTome, Llama-3.3-70B"),
    "Alpaca": Rows(255, 960, "Llama-3.1-8B Alpaca, Qwen2.5-7B Alpaca"),
    "guanaco, 128k words": Rows(430, None, "Llama-3-8B chat"),
    "guanaco, 32k words": Rows(503, None, "Mistral-7B chat, Phi-3.5-mini guanaco"),
    "math reasoning and FineTome": Rows(1408, None, "Qwen3-14B reasoning"),
    "unknown": Rows(None, None, ""),
    "chess games": Rows(None, None, ""),
    "tool calls": Rows(None, None, ""),
}
# Gemma 2's softcapped attention is compiled before the first update, in the printed time of 60 of them.
COMPILE_SECONDS, COMPILED, COMPILE_FROM = 119, "gemma2", "Gemma2-2B Alpaca"
# Runs that a number of the memory model was fitted to: the share of memory that the allocator wastes, and Alpaca's
# longest row.
MEMORY_FROM = ("1B one row", "Llama-3.1-8B Alpaca")
# Bytes per logit of unsloth until 2024.10: all logits in 16 bits, accelerate's float32 copy of them, and with
# softcapping two more 16-bit tensors.
WHOLE_BYTES, WHOLE_SOFTCAPPED_BYTES = 6, 10
# Until 2026 its loss took half of the free memory, counted 4 bytes per logit and held 8.
HALF_FREE_COUNTED_BYTES, HALF_FREE_BYTES = 4, 8


@dataclass(frozen=True)
class Run:
    """A published run: its row of the table, shape, and training setup."""

    row: dict[str, str]
    shape: Shape
    setup: TrainingSetup

    @property
    def case(self) -> str:
        return self.row["case"]

    @property
    def data(self) -> Rows:
        return DATA[self.row["data"]]


def read_runs() -> list[Run]:
    """The published runs, in the table's order."""
    with RUNS.open(encoding="utf-8", newline="") as stream:
        return [_run(row) for row in csv.DictReader(stream)]


def _run(row: dict[str, str]) -> Run:
    size = {key: int(row[key]) for key in ("vocab", "hidden", "mlp", "layers", "heads", "kv_heads", "head_dim")}
    gemma3 = row["model_type"] == "gemma3_text"
    shape = Shape(
        model_type=row["model_type"],
        vocab_size=size["vocab"],
        hidden_size=size["hidden"],
        intermediate_size=size["mlp"],
        layers=size["layers"],
        heads=size["heads"],
        kv_heads=size["kv_heads"],
        head_dim=size["head_dim"],
        tied=row["tied"] == "true",
        sliding_window=512 if gemma3 else None,
        full_attention_layers=size["layers"] // 6 if gemma3 else size["layers"],
        attention_bias=False,
        mlp_bias=False,
    )
    setup = TrainingSetup(
        precision=row["precision"],
        trainable=Trainable(method="lora", rank=int(row["rank"]), target_modules="all-linear"),
        optimizer="adamw_8bit",
        per_device=int(row["batch"]),
        max_length_tokens=int(row["max_length"]),
        compute_dtype=row["dtype"],
        backend="unsloth",
        checkpointing=True,
        longest_tokens=DATA[row["data"]].longest,
    )
    return Run(row, shape, setup)


def predicted_memory(run: Run, *, fragmentation: float = FRAGMENTATION) -> Memory:
    """The plan's memory of a run, with the logits that its version of unsloth held; no CUDA context, as torch counts."""
    memory = training_memory(run.shape, run.setup)
    logits = _logits_of_version(run, memory)
    weights = float(run.row["base_gib"]) * 1024 if run.row["base_gib"] else memory.weights
    return replace(memory, weights=weights, logits=logits, overhead=fragmentation * (memory.activations + logits))


def _logits_of_version(run: Run, memory: Memory) -> float:
    vocabulary, tokens = run.shape.vocab_size, run.setup.per_device * run.setup.row_tokens
    if run.row["loss"] == "whole":
        softcapped = run.row["model_type"] == "gemma2"
        return tokens * vocabulary * (WHOLE_SOFTCAPPED_BYTES if softcapped else WHOLE_BYTES) / MIB
    if run.row["loss"] == "half of what is free":
        free = read_cards()[CARDS[run.row["card"]]].memory_mib - memory.weights - memory.adapters
        splits = tokens * vocabulary * HALF_FREE_COUNTED_BYTES / MIB / (free / 2) / 4
        rows = math.ceil(tokens / max(1, 4 * round(splits)))
        return rows * vocabulary * HALF_FREE_BYTES / MIB
    return memory.logits


def memory_ratio(run: Run, *, fragmentation: float = FRAGMENTATION) -> float | None:
    """Predicted memory over the printed one; None if none was printed."""
    if not run.row["peak_reserved_gib"]:
        return None
    memory = predicted_memory(run, fragmentation=fragmentation)
    return sum(vars(memory).values()) / 1024 / float(run.row["peak_reserved_gib"])


def least_fragmentation(runs: list[Run]) -> float:
    """The smallest wasted share with which no run of today's loss takes more than predicted."""
    shares = []
    for run in runs:
        if run.row["loss"] == "parts" and run.row["peak_reserved_gib"]:
            none = sum(vars(predicted_memory(run, fragmentation=0.0)).values())
            one = sum(vars(predicted_memory(run, fragmentation=1.0)).values())
            shares.append((1024 * float(run.row["peak_reserved_gib"]) - none) / (one - none))
    return max(0.0, *shares)


def predicted_seconds(run: Run, *, tokens: float | None = None) -> float | None:
    """The plan's seconds per update; None if nothing is known of the rows' length."""
    tokens = tokens or run.data.mean
    if run.case == "1B one row":
        tokens = run.setup.max_length_tokens  # the longest that they can be
    if tokens is None:
        return None
    per_token = training_per_token(run.shape, run.setup.trainable, row_tokens=tokens, checkpointing=True)
    accumulation = int(run.row["accumulation"])
    flops = sum(per_token.values()) * tokens * run.setup.per_device * accumulation
    operations = accumulation * operations_per_pass(run.shape, checkpointing=True)
    rate = Rate(tflops=_rate(run), source="", launch_seconds=LAUNCH_SECONDS)
    compiled = COMPILE_SECONDS / UPDATES if run.row["model_type"] == COMPILED else 0.0
    return training_seconds(flops, operations, rate) + compiled


def _rate(run: Run) -> float:
    cards = read_cards()
    if run.row["card"] not in CARDS:
        return A10G_TFLOPS * cards["T4"].training_tflops / cards["T4"].peak_tflops
    card = cards[CARDS[run.row["card"]]]
    return FP32_SHARE * card.fp32_tflops if run.row["dtype"] == "fp32" else card.training_tflops


def is_fitted(run: Run) -> bool:
    """Whether a number of the time model was fitted to this run."""
    return run.case in run.data.from_run or run.case == COMPILE_FROM


def memory_table(runs: list[Run]) -> list[str]:
    """Printed and predicted memory as a Markdown table."""
    lines = [
        "| run | card | logits at once | printed, GiB | predicted, GiB | ratio | |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        ratio = memory_ratio(run)
        if ratio is not None:
            printed = float(run.row["peak_reserved_gib"])
            role = "fitted" if run.case in MEMORY_FROM else "checks"
            cells = (run.case, run.row["card"], run.row["loss"], f"{printed:.2f}", f"{ratio * printed:.2f}")
            lines.append(f"| {' | '.join(cells)} | {ratio:.2f} | {role} |")
    return lines


def time_table(runs: list[Run]) -> list[str]:
    """Printed and predicted seconds per update as a Markdown table."""
    lines = [
        "| run | card | tokens a row | printed, s | predicted, s | difference | |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        seconds, printed = predicted_seconds(run), float(run.row["seconds_per_step"])
        if seconds is None:
            lines.append(f"| {run.case} | {run.row['card']} | not known | {printed:g} | – | – | not checked |")
            continue
        tokens, role = f"{run.data.mean or run.setup.max_length_tokens:g}", "fitted" if is_fitted(run) else "checks"
        difference = f"{seconds / printed - 1:+.1%}"
        lines.append(
            f"| {run.case} | {run.row['card']} | {tokens} | {printed:g} | {seconds:.2f} | {difference} | {role} |"
        )
    return lines


def left_out_lines(runs: list[Run]) -> list[str]:
    """What the fitted numbers would be without each run, and how the left-out run is predicted then."""
    lines = []
    for run in runs:
        if run.row["loss"] == "parts" and run.row["peak_reserved_gib"]:
            share = least_fragmentation([other for other in runs if other is not run])
            ratio = memory_ratio(run, fragmentation=share)
            lines.append(f"| wasted share, without {run.case} | {share:.3f} | memory {ratio - 1:+.1%} |")
    for run in runs:
        others = [other for other in runs if other is not run and other.row["data"] == run.row["data"]]
        others = [other for other in others if other.case in run.data.from_run and other.row["card"] == run.row["card"]]
        if is_fitted(run) and run.row["data"] != "FineTome" and others and run.row["model_type"] != COMPILED:
            tokens = sum(fitted_tokens(other) for other in others) / len(others)
            error = predicted_seconds(run, tokens=tokens) / float(run.row["seconds_per_step"]) - 1
            lines.append(
                f"| tokens a row of {run.row['data']}, without {run.case} | {tokens:.0f} | time {error:+.1%} |"
            )
    lines += _rate_left_out_lines({run.case: run for run in runs})
    return ["| fitted number | value | the run left out |", "|---|---|---|", *lines]


def _rate_left_out_lines(runs: dict[str, Run]) -> list[str]:
    """The T4's rate from one of its two runs alone."""
    pair = [runs["1B FineTome"], runs["3B FineTome"]]
    lines = []
    for out, kept in (pair, reversed(pair)):
        too_slow = predicted_seconds(kept) / float(kept.row["seconds_per_step"])
        error = predicted_seconds(out) / float(out.row["seconds_per_step"]) / too_slow - 1
        lines.append(f"| T4's TFLOPS, without {out.case} | {too_slow * _rate(kept):.1f} | time {error:+.1%} |")
    return lines


def fitted_tokens(run: Run) -> float:
    """The mean row with which the plan meets a run's printed time."""
    low, high = 1.0, float(run.setup.max_length_tokens)
    for _ in range(40):
        middle = (low + high) / 2
        if predicted_seconds(run, tokens=middle) < float(run.row["seconds_per_step"]):
            low = middle
        else:
            high = middle
    return low


def page_with_tables(page: str, runs: list[Run]) -> str:
    """The page with its three tables recomputed."""
    tables = {"memory": memory_table(runs), "time": time_table(runs), "left out": left_out_lines(runs)}
    for name, lines in tables.items():
        start, end = f"<!-- {name}: python -m benchmarks.published -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        text = "\n".join([start, *lines, end])
        page = pattern.sub(lambda _, text=text: text, page)
    return page


def main() -> None:
    runs = read_runs()
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8"), runs), encoding="utf-8")
    print("\n".join([*memory_table(runs), "", *time_table(runs), "", *left_out_lines(runs)]))
    print(f"least wasted share: {least_fragmentation(runs):.3f}")
    for run in runs:
        print(run.case, f"{fitted_tokens(run):.0f}")


if __name__ == "__main__":
    main()
