"""Scoring in the GPU benchmark: a base and two adapters by our stage with each engine, and by the `lm_eval` command."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gpu_runs import Bench, wait
from loragrid.paths import ROOT, SCRIPTS

# Choices, whose question is shared, and generated answers, most of which reach their limit: the weights are random.
TASKS = ["world_facts", "running_plan"]
ADAPTERS = ("first", "second")
LM_EVAL = "lm_eval"


def ways() -> list[str]:
    """The engines of the score stage, and lm-eval's own command."""
    return ["hf", "vllm", LM_EVAL]


def score(bench: Bench, shape: str, way: str, *, items: int) -> dict[str, Any]:
    """Seconds of one call of our stage, or of one `lm_eval` command per subject. Raises RuntimeError if one fails."""
    place = bench.new_folder()
    model = bench.model(bench.plain(shape))
    adapters = {name: make_adapter(model, place / name, seed=seed) for seed, name in enumerate(ADAPTERS)}
    study = write_study(place, model, adapters, engine="hf" if way == LM_EVAL else way, items=items)
    if way == LM_EVAL:
        commands = [lm_eval(bench, study, model, folder) for folder in (None, *adapters.values())]
    else:
        commands = [[sys.executable, SCRIPTS / "score.py", "--study", study, "--list", list_subjects(bench, study)]]
    began = time.monotonic()
    for command in commands:
        wait(bench.spawn(command, place), place)
    seconds = time.monotonic() - began
    return {"seconds": seconds, "seconds_per_item": seconds / (len(TASKS) * items * (1 + len(adapters)))}


def make_adapter(model: Path, folder: Path, *, seed: int) -> Path:
    """A LoRA adapter of rank 16 on all linear layers, with random weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    with torch.device(device):
        base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    config = LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(folder, save_embedding_layers=False)
    return folder


def write_study(place: Path, model: Path, adapters: dict[str, Path], *, engine: str, items: int) -> Path:
    """A study in 16bit (32bit on a CPU) that scores the base and adopts the adapters."""
    import torch

    settings = yaml.safe_load((ROOT / "config" / "studies" / "t4.yaml").read_text())
    settings["models"] = {"random": {"path": str(model)}}
    precision, dtype = ("16bit", "auto") if torch.cuda.is_available() else ("32bit", "fp32")
    settings["base_case"] |= {"model": "random", "precision": precision, "compute_dtype": dtype, "backend": "trl"}
    settings["base_case"] |= {"optimizer": "adamw_torch"}
    settings["grid"] = {"axes": {}}
    settings["adopt"] = {name: {"path": str(folder), "model": "random"} for name, folder in adapters.items()}
    settings["scoring"] = {"target": TASKS, "limit": items, "engine": engine}
    settings["tune"] = None
    (place / "study.yaml").write_text(yaml.safe_dump(settings))
    return place / "study.yaml"


def list_subjects(bench: Bench, study: Path) -> Path:
    """The list of the base and the adapters for `score.py --list`."""
    from loragrid.study.study_file import load_study

    loaded, lines = load_study(str(study)), []
    for subject in (*loaded.bases, *loaded.adopted):
        out = study.parent / "scores" / subject
        lines.append(json.dumps({"subject": subject, "data": str(bench.rows()), "out": str(out)}))
    listed = study.parent / "subjects.jsonl"
    listed.write_text("\n".join(lines))
    return listed


def lm_eval(bench: Bench, study: Path, model: Path, adapter: Path | None) -> list[Any]:
    """lm-eval's command for one subject, with our batch size and template."""
    from loragrid.study.study_file import load_study

    scoring = load_study(str(study)).scoring
    arguments = [f"pretrained={model}", f"dtype={'bfloat16' if bench.cuda else 'float32'}"]
    arguments += [f"peft={adapter}"] if adapter else []
    command = [Path(sys.executable).with_name("lm_eval"), "run", "--model", "hf", "--model_args", *arguments]
    command += ["--tasks", ",".join(TASKS), "--include_path", ROOT / "config" / "tasks", "--apply_chat_template"]
    command += ["--limit", scoring.limit, "--batch_size", scoring.batch_size]
    return [
        *command,
        "--device",
        "cuda" if bench.cuda else "cpu",
        "-o",
        study.parent / f"lm_eval_{adapter and adapter.name}",
    ]
