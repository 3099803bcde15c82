"""Greedy answers on a CPU by loragrid and by lm-eval's own `generate_until`: pace, and whether the texts are the same.

    python -m benchmarks.generation [--model FOLDER] [--tokens 64] [--sample 4] [--repeats 3] [--out FILE.json]

The requests are the 48 of the task `running_plan_general` in the model's chat template, and every answer may have
`--tokens` tokens. loragrid answers all of them. lm-eval answers the first `--sample` at its default batch size of 1,
where each takes as long as another, and the first 16 at the default `scoring.batch_size`. Pace is answer tokens per
second of CPU time, with one thread, since other work on the machine lengthens wall time. Without `--model` a base of
the demo answers; a real model, such as SmolLM2-135M-Instruct, shows more.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring import ONE_THREAD, RESULTS, in_turn, ratios, spread, write
from loragrid.paths import ROOT

TASK = ROOT / "config" / "tasks" / "running_plan_general" / "running_plan_general.jsonl"
DEMO_MODEL = ROOT / "resources" / "models" / "llama-m"
BATCH_SIZE = 16
OURS, ALONE, BATCHED = "loragrid", "lm-eval, batch size 1", f"lm-eval, batch size {BATCH_SIZE}"


def measure(model: Path, *, tokens: int, sample: int, repeats: int) -> dict[str, Any]:
    """All ways in turn, and the texts that differ from those of lm-eval."""
    lms = load(model)
    requests = make_requests(lms[OURS], tokens)
    counts = {OURS: len(requests), ALONE: sample, BATCHED: BATCH_SIZE}
    texts: dict[str, list[str]] = {}

    def answer(way: str) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            if way == OURS:
                lms[way].start_task()
            cpu, wall = _cpu_seconds(), time.monotonic()
            texts[way] = lms[way].generate_until(requests[: counts[way]], disable_tqdm=True)
            cpu, wall = _cpu_seconds() - cpu, time.monotonic() - wall
            written = sum(len(lms[OURS].tok_encode(text)) for text in texts[way])
            return {
                "answers": counts[way],
                "tokens": written,
                "cpu_seconds": cpu,
                "seconds": wall,
                "pace": written / cpu,
            }

        return run

    taken = in_turn({way: answer(way) for way in lms}, repeats=repeats)
    return {
        "model": model.name,
        "tokens": tokens,
        "taken": taken,
        "pace": {way: spread([one["pace"] for one in each]) for way, each in taken.items()},
        "ratios": {f"{OURS} to {way}": ratios(taken, OURS, way, key="pace") for way in (ALONE, BATCHED)},
        "texts": {way: _same(texts[OURS], texts[way]) for way in (ALONE, BATCHED)},
    }


def load(folder: Path) -> dict[str, Any]:
    """lm-eval's model and ours around the same weights."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM

    from loragrid.models.chat_templates.probes import inspect_template
    from loragrid.models.loading import load_tokenizer
    from loragrid.scoring.lm_eval_model import LmEvalModel
    from loragrid.study.sections import ModelEntry

    torch.set_num_threads(1)
    template = inspect_template(load_tokenizer(ModelEntry(chat_template=None, path=str(folder))), model=folder.name)
    tokenizer = template.tokenizer
    tokenizer.chat_template = template.text
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    lms = {OURS: LmEvalModel(model, template, batch_size=BATCH_SIZE)}
    for way, size in ((ALONE, 1), (BATCHED, BATCH_SIZE)):
        lms[way] = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size)
    for lm in lms.values():
        lm.add_bos_token = False  # the template writes it
    return lms


def make_requests(lm: Any, tokens: int) -> list[Any]:
    """The task's requests as lm-eval makes them."""
    from lm_eval.api.instance import Instance

    settings = {"until": [], "do_sample": False, "max_gen_toks": tokens}
    prompts = [json.loads(line)["prompt"] for line in TASK.read_text(encoding="utf-8").splitlines()]
    return [
        Instance("generate_until", {}, (lm.apply_chat_template([{"role": "user", "content": prompt}]), settings), at)
        for at, prompt in enumerate(prompts)
    ]


def _cpu_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def _same(ours: list[str], theirs: list[str]) -> dict[str, int]:
    return {"compared": len(theirs), "different": sum(one != other for one, other in zip(ours, theirs, strict=False))}


def main() -> None:
    """Measure and write."""
    import os

    os.environ.update(ONE_THREAD)  # before torch is imported
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEMO_MODEL, help="folder of a pretrained chat model")
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of an answer")
    parser.add_argument("--sample", type=int, default=4, help="requests that lm-eval answers one by one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "generation.json")
    options = parser.parse_args()
    found = measure(options.model, tokens=options.tokens, sample=options.sample, repeats=options.repeats)
    write(options.out, found)


if __name__ == "__main__":
    main()
