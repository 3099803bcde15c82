"""A finished toy study for the app: real adapters with random weights, records, a comparison, a report."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import threading
import time
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from study.app.answering import Answer, Answerer
from study.app.catalogue import Catalogue, read_catalogue
from study.durable import sha256_file, write_json
from study.grid import Cell, expand
from study.records import RunRecord, write_record
from study.search_point import settings_sha256
from study.study_file import ROOT, Study, load_study
from study.winner import SCHEMA, winner_cell

PLAN = "10K plan, beginner, in km\nWeek 1: Tue easy 4, Thu steady 3, Sun long 6\nWeek 2: Tue easy 4, Thu steady 3, Sun long 7"
HOSTILE = (
    "Week 1: Tue <script>window.hit=1</script>, Thu <img src=x onerror=window.hit=1>, Sun [x](javascript:window.hit=1)\n"
    "Week 2: Tue ${window.hit=1}, Thu {{constructor.constructor('window.hit=1')()}}, Sun </textarea><b>long</b> 4\n"
)
REPORT = (
    "<!doctype html><html><head><title>r</title></head><body><h1>The toy's report</h1><a href='#end'>to the end</a>"
    "<script>document.title='ran';try{parent.hit=1}catch(e){document.title='shut in'}</script>"
    "<img src='http://elsewhere.invalid/x.png'><p id='end' style='margin-top:3000px'>end</p></body></html>"
)


def finished_study(folder: Path, **models: Path) -> Study:
    """A study with results in `folder`/results: for every model a run of two learning rates, the second one better."""
    settings = yaml.safe_load((ROOT / "config" / "studies" / "demo.yaml").read_text(encoding="utf-8"))
    settings["models"] = {
        key: {"path": str(path), "precision": "32bit", "chat_template": None} for key, path in models.items()
    }
    settings["base_case"] |= {"model": next(iter(models)), "learning_rate": 0.01, "rank": 4}
    settings["grid"] |= {"rank": [4], "batch": [[2, 4]], "model": list(models), "learning_rate": [0.01, 0.02]}
    settings["grid"]["design"] = "factorial"
    prompts = folder / "prompts.jsonl"
    row = {"id": "p1", "prompt": "A rephrased prompt", "original": "The prompt", "reference": "An answer"}
    prompts.write_text(json.dumps(row) + "\n")
    settings["scoring"]["qualitative"] = str(prompts)
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(settings))
    study = load_study(str(path))
    for seed, cell in enumerate(expand(study)):
        finished_run(folder / "results" / "train" / cell.run, cell, models[cell.model], seed)
    compared = [trade_off(cell.run, gain=cell.learning_rate) for cell in expand(study)]
    summary = folder / "results" / "compare" / "compare.json"
    summary.parent.mkdir(parents=True)
    summary.write_text(json.dumps({"trade_offs": compared}))
    (folder / "report.html").write_text(REPORT)
    return study


def finished_winner(study: Study, model: Path) -> tuple[Study, str]:
    """The study with its search enabled, done and its winner trained; the winner's run id."""
    settings = study.settings | {"tune": study.settings["tune"] | {"enabled": True}}
    study, results = dataclasses.replace(study, settings=settings), study.path.parent / "results"
    best = {"point": {"learning_rate": 0.003, "rank": 64}}
    found = {"schema": SCHEMA, "settings_sha256": settings_sha256(study), "best": best}
    write_json(results / "tune" / "tune.json", found)
    cell = winner_cell(study, results)
    finished_run(results / "train" / cell.run, cell, model, seed=9)
    return study, cell.run


def trade_off(run: str, *, gain: float, ship: str = "ship", verdict: str = "better") -> dict[str, Any]:
    return {"run": run, "gain": gain, "gain_verdict": verdict, "ship": ship}


def finished_run(folder: Path, cell: Cell, model: Path, seed: int) -> None:
    """An adapter whose random weights change every answer, and its record."""
    adapter = write_adapter(folder / "adapter", model, seed)
    kinds = {str: "x", int: 1, float: 1.0, dict: {}, tuple: ()}
    values = {f.name: kinds.get(typing.get_origin(f.type) or f.type) for f in dataclasses.fields(RunRecord)}
    values |= {"run": cell.run, "model": cell.model, "status": "finished", "schema": 1}
    values["adapter_sha256"] = sha256_file(adapter / "adapter_model.safetensors")
    write_record(folder / "record.json", RunRecord(**values))


def write_adapter(folder: Path, model: Path, seed: int) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(folder)
    return folder


def toy_catalogue(study: Study, **options: Any) -> Catalogue:
    """The catalogue of a `finished_study`."""
    folder = study.path.parent
    options = {"run": None, "adapter": None, "model": None} | options
    return read_catalogue(study, results=folder / "results", report=folder / "report.html", **options)


class Scripted(Answerer):
    """Answers with given texts instead of a model's: `texts` for the tuned models, `base_text` for untrained ones."""

    def __init__(self, catalogue: Catalogue, *, tuned: str, base: str, pause: float = 0.0) -> None:
        super().__init__(catalogue)
        self.tuned, self.base, self.pause = tuned, base, pause
        self.stopped = 0

    def stream(self, subject, prompt, sampling, stop=None) -> Iterator[Answer]:  # type: ignore[override]
        text = self.tuned if subject.adapter else self.base
        stop = stop or threading.Event()
        for end in range(8, len(text), 8):
            if stop.wait(self.pause):
                self.stopped += 1
                yield Answer(text[:end], end, 0.1 * end, "stopped")
                return
            yield Answer(text[:end], end, 0.1 * end, "")
        yield Answer(text, len(text), 0.1 * len(text), "itself")


def serving(answerer: Answerer, **options: Any) -> tuple[str, Any]:
    """The address of the app served on a free port, and what to close in the end."""
    from study.app.server import Serving, build, serve

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    page = build(answerer)
    return serve(page, Serving(**options)), page


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str], *, ended_by: int, **options: Any) -> Iterator[subprocess.Popen]:
    """A program while it runs; afterwards `process.said` is what it wrote to stderr. It never outlives the test."""
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )
    try:
        yield process
        process.send_signal(ended_by)
        _, process.said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()


def wait_for(address: str, process: subprocess.Popen) -> httpx.Response:
    """The answer of a server that is being started."""
    for _ in range(900):
        assert process.poll() is None, process.stderr.read()
        try:
            return httpx.get(address)
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"{address} did not answer in three minutes")
