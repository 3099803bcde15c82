"""Held-out losses and greedy answers of an exported form, loaded in a process of its own.

    python -m loragrid.exporting.measuring REQUEST.json ANSWER.json

A process that made the form could measure what it has in memory and not what it wrote.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loragrid.errors import Failed, UserError, one_line, run_main
from loragrid.exporting.questions import Question, as_json
from loragrid.exporting.results import Measured
from loragrid.study.sections import ModelEntry

LAST_CHARACTERS = 300  # of what a process that failed has printed


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form to load: `kind` is "adapter" (`folder` on the base `entry`), "whole", "merged", "vllm" or "gguf" (a file).

    `entry`: the training base of an adapter or of a whole model; `tokenizer`: folder of that of a GGUF.
    """

    kind: str
    folder: Path
    entry: ModelEntry | None = None
    tokenizer: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every form of a run is measured on."""

    heldout: Path
    questions: list[Question]
    batch_size: int
    threads: int


def measure_form(form: Form, job: Job) -> Measured:
    """Measure a form in a fresh process; raises `Failed` with the last line that it printed."""
    with tempfile.TemporaryDirectory() as place:
        request, answer = Path(place, "request.json"), Path(place, "answer.json")
        request.write_text(json.dumps(request_of(form, job)))
        command = [sys.executable, "-m", __name__, str(request), str(answer)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        sys.stderr.write(done.stderr)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it printed nothing"]
            raise Failed(f"{form.folder}: cannot be measured ({one_line(lines[-1])[:LAST_CHARACTERS]})")
        return Measured(**json.loads(answer.read_text()))


def request_of(form: Form, job: Job) -> dict[str, Any]:
    """A form and what it is measured on as plain values, for `measure`."""
    entry = None if form.entry is None else {key: _plain(value) for key, value in vars(form.entry).items()}
    return {
        "kind": form.kind,
        "folder": str(form.folder),
        "entry": entry,
        "tokenizer": str(form.tokenizer),
        "heldout": str(job.heldout),
        "questions": as_json(job.questions),
        "batch_size": job.batch_size,
        "threads": job.threads,
    }


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def measure(request: Mapping[str, Any]) -> Measured:
    """Load the form of a request and measure it, in this process."""
    questions = [Question(**question) for question in request["questions"]]
    if request["kind"] == "gguf":
        from transformers import AutoTokenizer

        from loragrid.exporting.gguf_measuring import measure_gguf

        tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"], trust_remote_code=False)
        return measure_gguf(Path(request["folder"]), Path(request["heldout"]), questions, tokenizer)
    if request["kind"] == "vllm":
        from loragrid.exporting.vllm_measuring import measure_vllm

        return measure_vllm(Path(request["folder"]), Path(request["heldout"]), questions)
    import torch

    from loragrid.models.attached_adapters import merged
    from loragrid.scoring.heldout.losses import measure as row_losses
    from loragrid.scoring.heldout.losses import weighted_mean

    torch.set_num_threads(request["threads"])
    model, tokenizer = _load(request)
    losses = row_losses(model, Path(request["heldout"]))
    loss, _ = weighted_mean(losses)
    with merged(model), torch.inference_mode():
        prompts, answers = _answers(model, tokenizer, questions, batch_size=request["batch_size"])
    dtype = str(model.dtype).removeprefix("torch.")
    return Measured(loss, len(losses), answers, prompts, f"{dtype} on {model.device.type}")


def _load(request: Mapping[str, Any]) -> tuple[Any, Any]:
    """The model and its tokenizer, each from the form's folder where it is complete, else from the base."""
    from transformers import AutoTokenizer

    from loragrid.models.attached_adapters import attach_adapter
    from loragrid.models.loading import load_base, load_stored, load_tokenizer, torch_device

    folder, device = Path(request["folder"]), torch_device()
    if request["kind"] == "merged":
        model = load_stored(folder).to(device)
        return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    entry = ModelEntry(**request["entry"])
    if request["kind"] == "whole":
        model = load_base(ModelEntry(**request["entry"] | {"path": str(folder), "hub": None}), device=device)
        return model, load_tokenizer(entry)
    return attach_adapter(load_base(entry, device=device), folder), load_tokenizer(entry)


def _answers(
    model: Any, tokenizer: Any, questions: list[Question], *, batch_size: int
) -> tuple[list[list[int]], list[str]]:
    """The token ids of each question's prompt, and the greedy answers."""
    from loragrid.scoring.answers import generate_greedily
    from loragrid.scoring.generation import AnswerMeter
    from loragrid.scoring.prompts import prompt_ids
    from loragrid.scoring.running_task import NOTHING_KEPT

    context = model.config.get_text_config().max_position_embeddings
    prompts = [prompt_ids(tokenizer, one.text) if one.ids is None else one.ids for one in questions]
    asked = [(ids, min(one.most_tokens, context - len(ids))) for one, ids in zip(questions, prompts, strict=True)]
    if any(most < 1 for _, most in asked):
        longest = max(map(len, prompts))
        raise UserError(
            f"scoring.qualitative: a prompt of {longest} tokens leaves no room in the context of {context}. "
            "Fix: shorten it."
        )
    rows = generate_greedily(model, tokenizer, asked, batch_size=batch_size, running=NOTHING_KEPT)
    meter, answers = AnswerMeter(model, tokenizer), []
    for (_, most), tokens in zip(asked, rows, strict=True):
        kept, _ = meter.measure(tokens[:most], stops=[])
        answers.append(tokenizer.decode(kept, skip_special_tokens=True))
    return prompts, answers


def main() -> None:
    """Map the command line to `measure`."""
    from loragrid.runtime.quiet_libraries import quiet_libraries

    quiet_libraries()
    request, answer = sys.argv[1:]
    measured = measure(json.loads(Path(request).read_text()))
    Path(answer).write_text(json.dumps(asdict(measured)))


if __name__ == "__main__":
    run_main(main)
