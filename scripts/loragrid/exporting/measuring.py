"""Held-out losses and greedy answers of an exported form, loaded in a process of its own.

    python -m loragrid.exporting.measuring REQUEST.json ANSWER.json [--log FILE]

A process that made the form could measure what it has in memory and not what it wrote.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loragrid.errors import EXIT_STOPPED, Failed, UserError, first_line, log_option, one_line, output_options
from loragrid.exporting.questions import Measured, Question, as_json
from loragrid.runtime.progress_lines import ProgressLines
from loragrid.runtime.torch_memory import set_up_torch
from loragrid.scoring.running_task import RunningTask
from loragrid.study.sections import ModelEntry

LAST_CHARACTERS = 300  # of the reason why a form cannot be measured
# ASSUME: weights in float32 may fill this share of the memory; activations and logits take the rest.
FLOAT32_SHARE = 0.7


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form to load: `kind` is "adapter" (`folder` on the base `entry`), "whole", "merged", "vllm" or "gguf" (a file).

    `entry`: the training base of an adapter or of a whole model; `tokenizer`: folder of that of a GGUF. `dtype`:
    what a model of transformers computes in, from `common_dtype`; None for its own dtype.
    """

    kind: str
    folder: Path
    entry: ModelEntry | None = None
    tokenizer: Path | None = None
    dtype: str | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every form of a run is measured on; `label` begins the progress lines."""

    heldout: Path
    questions: list[Question]
    batch_size: int
    threads: int
    label: str = "export"


def measure_form(form: Form, job: Job) -> Measured:
    """Measure a form in a fresh process, which prints its progress; raises `Failed` with its reason."""
    with tempfile.TemporaryDirectory() as place:
        request, answer = Path(place, "request.json"), Path(place, "answer.json")
        request.write_text(json.dumps(request_of(form, job)))
        options, terminal = output_options()
        command = [sys.executable, "-m", __name__, str(request), str(answer), *options]
        done = subprocess.run(command, stderr=terminal)
        found = json.loads(answer.read_text()) if answer.is_file() else {}
        if done.returncode != 0 or "failure" in found:
            reason = found.get("failure", f"its process ended with {done.returncode}")
            raise Failed(f"{form.kind}: cannot be measured ({reason})")
        return Measured(**found)


def request_of(form: Form, job: Job) -> dict[str, Any]:
    """A form and what it is measured on as plain values, for `measure`."""
    entry = None if form.entry is None else {key: _plain(value) for key, value in vars(form.entry).items()}
    return {
        "kind": form.kind,
        "folder": str(form.folder),
        "entry": entry,
        "tokenizer": str(form.tokenizer),
        "dtype": form.dtype,
        "heldout": str(job.heldout),
        "questions": as_json(job.questions),
        "batch_size": job.batch_size,
        "threads": job.threads,
        "label": f"{job.label} measuring {form.kind}",
    }


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def measure(request: Mapping[str, Any]) -> Measured:
    """Load the form of a request and measure it, in this process."""
    questions, running = [Question(**question) for question in request["questions"]], RunningTask(request["label"])
    folder, heldout = Path(request["folder"]), Path(request["heldout"])
    if request["kind"] == "gguf":
        from transformers import AutoTokenizer

        from loragrid.exporting.gguf_measuring import measure_gguf

        tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"], trust_remote_code=False)
        return measure_gguf(folder, heldout, questions, tokenizer, running=running, threads=request["threads"])
    if request["kind"] == "vllm":
        from loragrid.exporting.vllm_measuring import measure_vllm

        return measure_vllm(folder, heldout, questions, running=running)
    import torch

    from loragrid.models.attached_adapters import merged
    from loragrid.models.compute_dtype import compute_in
    from loragrid.scoring.heldout.losses import measure as row_losses
    from loragrid.scoring.heldout.losses import weighted_mean

    set_up_torch(request["threads"])
    with ProgressLines(f"{request['label']}, loading", total=1, items="models"):
        model, tokenizer = _load(request)
    own_loss = None
    if request["kind"] == "merged" and request["dtype"] not in (None, _name(model.dtype)):
        # As its users load it.
        own_loss, _ = weighted_mean(row_losses(model, heldout, running))
    losses = row_losses(compute_in(model, request["dtype"]), heldout, running)
    loss, _ = weighted_mean(losses)
    with merged(model), torch.inference_mode():
        prompts, answers = _answers(model, tokenizer, questions, batch_size=request["batch_size"], running=running)
    arithmetic = f"{_name(model.dtype)} on {model.device.type}"
    return Measured(loss, len(losses), answers, prompts, arithmetic, own_loss)


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def common_dtype(parameters: int) -> str | None:
    """The dtype that forms are compared in: float32 if so many parameters fit the memory, else None (each in its own).

    In 16 bits each form adds errors of arithmetic, which may exceed what a merge loses and differ between kernels.
    """
    import torch

    from loragrid.models.loading import torch_device

    if torch_device() == "cuda":
        room = torch.cuda.get_device_properties(0).total_memory
    else:
        room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "float32" if 4 * parameters <= FLOAT32_SHARE * room else None


def _load(request: Mapping[str, Any]) -> tuple[Any, Any]:
    """The model and its tokenizer, each from the form's folder where it is complete, else from the base."""
    from transformers import AutoTokenizer

    from loragrid.models.attached_adapters import attach_adapter
    from loragrid.models.compute_dtype import compute_in
    from loragrid.models.loading import load_base, load_stored, load_tokenizer, torch_device

    folder, device, dtype = Path(request["folder"]), torch_device(), request["dtype"]
    if request["kind"] == "merged":
        model = load_stored(folder).to(device)
        return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    entry = ModelEntry(**request["entry"])
    if request["kind"] == "whole":
        model = load_base(ModelEntry(**request["entry"] | {"path": str(folder), "hub": None}), device=device)
        return model, load_tokenizer(entry)
    base = compute_in(load_base(entry, device=device), dtype)
    return attach_adapter(base, folder), load_tokenizer(entry)


def _answers(
    model: Any, tokenizer: Any, questions: list[Question], *, batch_size: int, running: RunningTask
) -> tuple[list[list[int]], list[str]]:
    """The token ids of each question's prompt, and the greedy answers."""
    from loragrid.scoring.answers import generate_greedily
    from loragrid.scoring.generation import AnswerMeter
    from loragrid.scoring.prompts import prompt_ids

    context = model.config.get_text_config().max_position_embeddings
    prompts = [prompt_ids(tokenizer, one.text) if one.ids is None else one.ids for one in questions]
    asked = [(ids, min(one.most_tokens, context - len(ids))) for one, ids in zip(questions, prompts, strict=True)]
    if any(most < 1 for _, most in asked):
        longest = max(map(len, prompts))
        raise UserError(
            f"scoring.qualitative: a prompt of {longest} tokens leaves no room in the context of {context}. "
            "Fix: shorten it."
        )
    rows = generate_greedily(model, tokenizer, asked, batch_size=batch_size, running=running)
    meter, answers = AnswerMeter(model, tokenizer), []
    for (_, most), tokens in zip(asked, rows, strict=True):
        kept, _ = meter.measure(tokens[:most], stops=[])
        answers.append(tokenizer.decode(kept, skip_special_tokens=True))
    return prompts, answers


def main() -> None:
    """Map the command line to `measure`; a failure is written for the process that asks, which prints it."""
    parser = argparse.ArgumentParser(parents=[log_option()])
    parser.add_argument("request", type=Path)
    parser.add_argument("answer", type=Path)
    options = parser.parse_args()
    from loragrid.runtime.quiet_libraries import quiet_libraries

    quiet_libraries()
    try:
        found = asdict(measure(json.loads(options.request.read_text())))
    except KeyboardInterrupt:
        raise SystemExit(EXIT_STOPPED) from None  # the stage says so
    except (UserError, Failed) as failure:
        found = {"failure": one_line(str(failure))[:LAST_CHARACTERS]}
    except Exception as error:  # libraries raise errors of any kind for a form that they refuse
        traceback.print_exc()
        found = {"failure": f"{type(error).__name__}: {first_line(error)}"[:LAST_CHARACTERS]}
    options.answer.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
