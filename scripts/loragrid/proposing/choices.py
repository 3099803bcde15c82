"""Settings that suit data, model and device: length, batch, precision, budget, seeds and what is measured."""

import math
import statistics
from dataclasses import replace
from typing import Any

from loragrid.errors import UserError
from loragrid.formatting import listed, plural
from loragrid.models.shape import Shape
from loragrid.planning.gpu_cards import PlannedDevice
from loragrid.proposing.column_guess import SHOWN, column_words
from loragrid.proposing.costs import memory_mib, needed_mib
from loragrid.proposing.data_findings import DataFindings
from loragrid.proposing.model_findings import ModelFindings
from loragrid.proposing.proposal import Proposal
from loragrid.proposing.request import Request, key_of
from loragrid.runtime.cpu_speed import usable_cpus
from loragrid.study.batch_shares import CPU_PASS_TOKENS

# Half a decade either side of 3e-4, near the optima that are published for LoRA.
USUAL_RATES = (1e-4, 3e-4, 1e-3)
SEEDS = (1, 2, 3)
LONGEST = {"cpu": 1024, "cuda": 2048}  # max_length_tokens at most: longer rows take the most of the memory
FITTING_SHARE = 0.99  # of the rows that are not cut
FEW_ROWS, EPOCHS_OF_FEW = 2_000, 3  # a small data set is worth more than one pass; evaluations show overfitting
# Training rows → rows of an update, so that a pass has some forty updates or more.
UPDATE_ROWS = ((320, 8), (120, 4), (0, 2))
LARGE_PARAMETERS, MOST_THREADS = 5e7, 4  # a smaller model is fastest on one thread
# What a base could do before, asked for without writing answers: of English, downloaded from the hub.
RETENTION = {
    "cuda": ("arc_easy", "hellaswag", "winogrande"),
    "cpu": ("blimp_adjunct_island", "blimp_anaphor_number_agreement", "blimp_causative"),
}
RETENTION_ITEMS = {"cuda": 1000, "cpu": 200}


def propose(
    request: Request, data: DataFindings, model: ModelFindings, device: PlannedDevice, *, command: str
) -> Proposal:
    """Settings for this data and model before they are cut to the hours; `command`: how the study was asked for.

    Raises `UserError` if no run of the model fits the device.
    """
    longest = _longest(data, model, device.kind)
    threads = _threads(model, device.kind)
    notes = {
        "heldout": f"never trained on; {data.train_rows:,} rows are left for training",
        "max_length_tokens": _length_note(data, longest),
        "seeds": "three for each setting: a difference between two runs may be the seed's",
        "scoring": "The loss on the held-out rows says what was learned; no task is needed for it.",
    }
    entry = {"source": request.data_source} | ({"columns": dict(data.columns)} if data.columns else {})
    retention, notes["retention"] = _retention(model, device.kind)
    proposal = Proposal(
        name=request.name,
        command=command,
        left_out="",
        data=(key_of(request.data), entry),
        data_name=data.name,
        data_note=data_note(data),
        model=(model.key, model.entry),
        model_note=model_note(model),
        heldout_rows=data.heldout_rows,
        learning_rates=request.learning_rates or USUAL_RATES,
        rates_asked=bool(request.learning_rates),
        seeds=SEEDS,
        run=_run_settings(data, device.kind, longest=longest, threads=threads),
        retention=retention,
        limit=RETENTION_ITEMS[device.kind],
        card=request.card,
        train_rows=data.train_rows,
        row_tokens=data.mean_cut(longest),
        cores=threads,
        notes=notes,
    )
    return fit_memory(proposal, model.shape, device)


def _run_settings(data: DataFindings, kind: str, *, longest: int, threads: int) -> dict[str, Any]:
    """What the base case sets; on a CPU also what differs there from the defaults."""
    rows = next(rows for least, rows in UPDATE_ROWS if data.train_rows >= least)
    run: dict[str, Any] = {"batch": [rows, 1], "budget": {"epochs": EPOCHS_OF_FEW if data.train_rows < FEW_ROWS else 1}}
    run |= {"max_length_tokens": longest}
    if kind == "cpu":
        run |= {"precision": "32bit", "compute_dtype": "fp32", "backend": "trl"}
    return run | ({"threads": threads} if threads > 1 else {})


def fit_memory(proposal: Proposal, shape: Shape, device: PlannedDevice) -> Proposal:
    """The proposal with as many rows in a pass as fit, and in 4 bits if nothing else fits on a GPU."""
    limit, whole = memory_mib(device), proposal.rows_per_update
    sizes = [rows for rows in range(whole, 0, -1) if whole % rows == 0]
    if device.kind == "cpu":
        # A CPU is no faster with more tokens in a pass, as training folds batches up to that size by itself.
        sizes = [rows for rows in sizes if rows * proposal.run["max_length_tokens"] <= CPU_PASS_TOKENS] or [1]
    tried = [(rows, None) for rows in sizes]
    if device.kind == "cuda":
        tried += [(rows, "4bit") for rows in sizes]
    needed = 0
    for rows, precision in tried:
        run = dict(proposal.run) | {"batch": [rows, whole // rows]} | ({"precision": precision} if precision else {})
        fitting = replace(proposal, run=run)
        needed = needed_mib(fitting, shape, device)
        if limit is None or needed <= limit:
            room = "" if limit is None else f"{needed:,} of {limit:,} MiB"
            return replace(fitting, notes=dict(proposal.notes) | {"batch": room})
    raise UserError(
        f"MODEL: a run needs {needed:,} MiB even with one row at a time, and {device.name} has {limit:,} for it. "
        "Fix: choose a smaller model, or CARD=… with more memory."
    )


def with_warmup(proposal: Proposal, updates: int) -> Proposal:
    """The proposal with a warm-up that suits runs of that many updates; the note of its budget says how many."""
    run, notes = dict(proposal.run), dict(proposal.notes)
    (unit,) = run["budget"]
    passes = "" if unit == "epochs" else f" of {proposal.row_tokens:.0f} tokens a row"
    notes["budget"] = f"{plural(updates, 'update')}{passes}"
    if updates < 100:
        # 3 % of so few updates are one or two, which keep no first update small.
        run["warmup"] = {"steps": max(1, round(updates / 10))}
        notes["warmup"] = "a tenth of so short a run"
    return replace(proposal, run=run, notes=notes)


def _longest(data: DataFindings, model: ModelFindings, kind: str) -> int:
    fitting = data.tokens[math.ceil(FITTING_SHARE * len(data.tokens)) - 1]
    # Multiples of 64, which kernels like, with room for rows that are not in the sample.
    wanted = 64 * math.ceil(fitting / 64)
    longest = min(wanted, LONGEST[kind], model.context or wanted)
    if data.lost_share(longest) == 1:
        raise UserError(
            f"DATA: the prompts are longer than the {longest:,} tokens of a row, and no reply would be left. "
            "Fix: shorten the prompts, or choose a model with a longer context or a GPU."
        )
    return longest


def _length_note(data: DataFindings, longest: int) -> str:
    cut, lost = data.cut_share(longest), data.lost_share(longest)
    note = "no row of the sample is longer" if not cut else f"{cut:.1%} of the rows are longer and are cut"
    return f"{note}, {lost:.1%} left out as no reply is left" if lost else note


def _threads(model: ModelFindings, kind: str) -> int:
    if kind == "cuda" or model.shape.parameters() < LARGE_PARAMETERS:
        return 1
    return min(MOST_THREADS, usable_cpus())


def _retention(model: ModelFindings, kind: str) -> tuple[tuple[str, ...], str]:
    names = RETENTION[kind]
    if model.from_hub:
        return names, "what the base could do before; add tasks that matter to you"
    return (), f"add tasks to see what is forgotten, such as {names[0]} (downloaded)"


def data_note(data: DataFindings) -> str:
    """What is in the data, in one or two lines."""
    tokens = data.tokens
    lengths = f"{tokens[0]:,} to {tokens[-1]:,} tokens a row, {statistics.fmean(tokens):,.0f} on average"
    counts = plural(data.rows_read, "row")
    if data.distinct < data.rows_read:
        counts += f", {data.distinct:,} of them used"
    lines = [f"{data.name}: {counts}, in the form {data.form}; {lengths}."]
    if data.guessed:
        uses = listed([f"{column} is the {use}" for use, column in data.columns.items()])
        lines.append(f"A guess: {uses}; COLUMNS changes it.")
        if any(character.isdigit() for column in data.columns.values() for character in column):
            lines.append(
                "If these are values of a first row and not column names, add a line such as question,answer above it."
            )
    if data.unused:
        more = [f"{len(data.unused) - SHOWN} more"] if len(data.unused) > SHOWN else []
        lines.append(f"Not used: {listed([*data.unused[:SHOWN], *more])}{_if_reply(data)}.")
    if data.left_out:
        lines.append(f"Left out: {data.left_out}.")
    if data.equal_rows:
        lines.append(f"Left out: {plural(data.equal_rows, 'row')} equal to an earlier one.")
    lines += [f"{note[0].upper()}{note[1:]}." for note in data.split_notes]
    return "\n".join(lines)


def _if_reply(data: DataFindings) -> str:
    """A hint if plain text has a column beside it that may be its reply."""
    if data.form != "text" or data.columns:
        return ""
    return (
        f'; if that is the reply to the text, set COLUMNS="{column_words({"prompt": "text", "reply": data.unused[0]})}"'
    )


def model_note(model: ModelFindings) -> str:
    """What the model is, in one or two lines."""
    context = "" if model.context is None else f", context of {model.context:,} tokens"
    lines = [f"{model.shape.parameters() / 1e6:,.1f} million parameters{context}."]
    if not model.own_template:
        lines.append("It brings no chat template, so it is taught ChatML.")
    return "\n".join(lines)
