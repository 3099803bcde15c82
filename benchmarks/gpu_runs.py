"""Training runs of the GPU benchmark, by loragrid or by a peer, each in its own process."""

import csv
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gpu_predictions import MEAN_TOKENS, MOST_TOKENS, Setting, predicted_mib, utilisation
from benchmarks.measuring import ONE_THREAD
from benchmarks.shapes import make_model, make_rows
from loragrid.paths import ROOT, SCRIPTS
from loragrid.planning.memory_model import CONTEXT_MIB

HERE = Path(__file__).resolve().parent
SAID = 500  # characters of the output of a failed run
WITH_LIGER = " with liger"  # after the name of the backend


class Bench:
    """Models and rows, made once in `folder`, and runs of `steps` updates on them. With `turns`, runs that start together use
    the card one after another."""

    def __init__(self, folder: Path, *, steps: int, turns: bool = True, models: Path | None = None) -> None:
        """`models`: a folder that keeps the models for the next call."""
        import torch

        self.folder, self.steps, self.turns, self.models = folder, steps, turns, models or folder / "models"
        self.cuda = torch.cuda.is_available()
        self.dtype = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if self.cuda else "fp32"
        self._runs, self._lock = itertools.count(1), threading.RLock()
        self._most_tokens = MOST_TOKENS if self.cuda else 128

    def backends(self) -> list[str]:
        """loragrid's backends that can run here."""
        return ["unsloth", "trl"] if self.cuda and find_spec("unsloth") else ["trl"]

    def ways(self, *, alone: Sequence[str] = ("",)) -> list[str]:
        """loragrid with each backend, and the library alone, at our settings ("") or at others (", its own defaults")."""
        return [way for name in self.backends() for way in (f"loragrid, {name}", *(name + how for how in alone))]

    def liger_ways(self) -> list[str]:
        """loragrid with TRL, without and with liger's kernels, where liger is installed."""
        return ["loragrid, trl", f"loragrid, trl{WITH_LIGER}"] if self.cuda and find_spec("liger_kernel") else []

    def plain(self, shape: str) -> Setting:
        """The base case of that shape."""
        precision = "4bit" if self.cuda else "32bit"
        return Setting(shape=shape, precision=precision, per_device=2, packing=False, dtype=self.dtype)

    def speed(self, setting: Setting, way: str) -> dict[str, Any]:
        """Useful tokens per second, step time, peak memory and FLOP utilisation. Raises RuntimeError if the run fails."""
        name, _, how = way.removeprefix("loragrid, ").partition(", ")
        outcome = self.ours(setting, name) if way.startswith("loragrid") else self.peer(setting, name, how)
        seconds = statistics.median(outcome["step_seconds"][self.steps // 4 :])
        row = {"step_seconds": seconds, "step_seconds_all": outcome["step_seconds"]}
        row |= {"loss_tokens_all": outcome["loss_tokens"]}
        row |= {"useful_tokens_per_second": outcome["loss_tokens_per_step"] / seconds}
        row |= {"tokens_per_second": outcome["tokens_per_step"] / seconds, "peak_vram_mib": outcome["peak_vram_mib"]}
        return row | {
            "flop_utilisation": utilisation(self.model(setting), setting, outcome["tokens_per_step"] / seconds)
        }

    def fit(self, setting: Setting, backend: str, *, cap_mib: int) -> dict[str, Any]:
        """Whether a run on rows of full length fits under the cap, its peak memory, and the predicted peak."""
        predicted = predicted_mib(
            self.model(setting), setting, backend, optimizer=self._optimizer(), most_tokens=self._most_tokens
        )
        row = {"predicted_mib": round(predicted)}
        try:
            peak = self.ours(setting, backend, cap_mib=cap_mib, mean_tokens=50 * self._most_tokens)["peak_vram_mib"]
        except RuntimeError as error:
            if "out of" not in str(error) or "memory" not in str(error):
                raise
            return row | {"fits": False, "because": str(error)}
        # The plan counts the CUDA context, torch does not.
        return row | {
            "fits": True,
            "peak_vram_mib": peak,
            "off": predicted / (peak + CONTEXT_MIB) - 1 if peak else None,
        }

    def several(self, setting: Setting, number: int, *, beside: bool) -> dict[str, Any]:
        """Seconds that Snakemake takes for `number` runs that differ in the seed, with `vram_mib` for all of them at once or
        for one at a time."""
        from loragrid.planning.job_resources import resource_requests
        from loragrid.study.study_file import load_study

        path = self._study(setting, "trl", save_steps=10_000, seeds=range(number))
        study, place = load_study(str(path)), self.new_folder()
        results = place / "results" / study.name
        cells = study.cells
        shutil.copytree(self.rows(), results / "data" / cells[0].data)
        asked = resource_requests(study, cells, results=results, session_minutes=None)["train"][cells[0].run][
            "vram_mib"
        ]
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            ROOT / "workflow" / "Snakefile",
            "--until",
            "train",
        ]
        command += ["--cores", number, "--resources", f"vram_mib={asked * (number if beside else 1)}"]
        command += ["--directory", place, "--config", f"study={path}"]
        began = time.monotonic()
        wait(self.spawn(command, place), place)
        seconds = time.monotonic() - began
        done = len(list(results.glob("train/*/record.json")))
        if done != number:
            raise RuntimeError(f"{done} of {number} runs were trained")
        return {"seconds": seconds, "vram_mib_asked": asked}

    def resume(self, setting: Setting, backend: str) -> dict[str, Any]:
        """Largest absolute difference of an adapter weight between two uninterrupted runs, and after a kill."""
        started = [self._start(setting, backend) for _ in range(2)]
        process, out = self._start(setting, backend, save_steps=2)
        while process.poll() is None and not (out / "checkpoints").is_dir():
            time.sleep(0.01)
        while process.poll() is None and not list((out / "checkpoints").glob("checkpoint-*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        wait(self._start(setting, backend, save_steps=2, out=out)[0], out)
        for process, folder in started:
            wait(process, folder)
        first, second = (folder for _, folder in started)
        difference = {"second run": _difference(first, second), "killed and resumed": _difference(first, out)}
        return {"killed": killed, "largest_difference": difference}

    def ours(self, setting: Setting, backend: str, **options: Any) -> dict[str, Any]:
        """Time and memory of a run by the train stage."""
        out = self._finished(setting, backend, **options)
        record = json.loads((out / "record.json").read_text())
        with open(out / "losses.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["kind"] == "train"]
        seconds, seen = [float(row["seconds"]) for row in rows], [0, *(int(row["loss_tokens"]) for row in rows)]
        steps = record["steps"]
        return {
            "loss_tokens": [after - before for before, after in itertools.pairwise(seen)],
            "step_seconds": [later - earlier for earlier, later in itertools.pairwise(seconds)],
            "tokens_per_step": record["tokens"] / steps,
            "loss_tokens_per_step": record["loss_tokens"] / steps,
            "peak_vram_mib": record["peak_vram_mib"],
        }

    def peer(self, setting: Setting, library: str, how: str = "") -> dict[str, Any]:
        """Time and memory of the library alone, with our settings or those of `how`."""
        out = self.new_folder()
        asked = vars(setting) | {"model": str(self.model(setting)), "data": str(self.rows())}
        asked |= {"how": how, "steps": self.steps, "most_tokens": self._most_tokens, "optimizer": self._optimizer()}
        (out / "settings.json").write_text(json.dumps(asked))
        command = [HERE / "gpu_peer.py", library, "--settings", out / "settings.json", "--out", out / "outcome.json"]
        wait(self.spawn(self._in_turn(library, command), out), out)
        return json.loads((out / "outcome.json").read_text())

    def _finished(self, setting: Setting, backend: str, **options: Any) -> Path:
        process, out = self._start(setting, backend, **options)
        wait(process, out)
        return out

    def _start(
        self,
        setting: Setting,
        backend: str,
        *,
        cap_mib: int = 0,
        save_steps: int = 10_000,
        mean_tokens: int | None = None,
        out: Path | None = None,
    ) -> tuple[subprocess.Popen, Path]:

        from loragrid.study.study_file import load_study

        out = out or self.new_folder()
        path = self._study(setting, backend, save_steps=save_steps)
        run = load_study(str(path)).cells[0].run
        stage = [SCRIPTS / "train.py", "--study", path, "--run", run, "--data", self.rows(mean_tokens), "--out", out]
        return self.spawn(self._in_turn(backend, [HERE / "gpu_capped.py", cap_mib, *stage]), out), out

    def _in_turn(self, library: str, command: list[Any]) -> list[Any]:
        """A Python command that imports its libraries at once and waits for its turn, if there are turns."""
        if not (self.turns and self.cuda):
            return [sys.executable, *command]
        name = library.removesuffix(WITH_LIGER)
        return [sys.executable, HERE / "gpu_turn.py", name, self.folder / "turn", *command]

    def spawn(self, command: list[Any], out: Path) -> subprocess.Popen:
        with open(out / "said", "ab") as said:
            return subprocess.Popen(
                [str(part) for part in command], env=os.environ | ONE_THREAD, stdout=said, stderr=said
            )

    def _study(self, setting: Setting, backend: str, *, save_steps: int, seeds: Sequence[int] = (3407,)) -> Path:
        settings = yaml.safe_load((ROOT / "config" / "studies" / "t4.yaml").read_text())
        settings["models"] = {"random": {"path": str(self.model(setting))}}
        settings["base_case"] |= {
            **{"rank": setting.rank, "batch": [setting.per_device, setting.accumulation]},
            **{"precision": setting.precision, "backend": backend.removesuffix(WITH_LIGER)},
            **{"budget": {"steps": self.steps}, "packing": setting.packing, "compute_dtype": setting.dtype},
            **{"optimizer": self._optimizer(), "max_length_tokens": self._most_tokens, "evaluations": 1},
        }
        settings["grid"] = {"axes": {"seed": list(seeds)}}
        # The table compares batches as they are written, one row of it folded.
        settings["training"] = {"save_steps": save_steps, "save_minutes": 1000, "fold_batches": False}
        settings["training"]["liger_kernels"] = backend.endswith(WITH_LIGER)
        path = self.new_folder() / "study.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    def _optimizer(self) -> str:
        return "adamw_8bit" if self.cuda else "adamw_torch"

    def new_folder(self) -> Path:
        folder = self.folder / str(next(self._runs))
        folder.mkdir(parents=True)
        return folder

    def rows(self, mean_tokens: int | None = None) -> Path:
        with self._lock:
            return self._make_rows(mean_tokens)

    @cache  # noqa: B019  (one bench lives as long as the process)
    def _make_rows(self, mean_tokens: int | None) -> Path:
        options = {"mean_tokens": mean_tokens or (MEAN_TOKENS if self.cuda else 40)}
        return make_rows(self.new_folder() / "data", rows=500, heldout=4, most_tokens=self._most_tokens, **options)

    def model(self, setting: Setting) -> Path:
        """A base in bfloat16, as on the hub, for any training precision; in float32 on a CPU."""
        with self._lock:
            place = self.models / f"{setting.shape}-{'bfloat16' if self.cuda else 'float32'}"
            if not place.is_dir():
                made = make_model(setting.shape, self.new_folder() / "model", dtype=place.name.rpartition("-")[2])
                place.parent.mkdir(parents=True, exist_ok=True)
                made.rename(place)
            return place


def wait(process: subprocess.Popen, out: Path) -> None:
    if process.wait():
        said = (out / "said").read_text(errors="replace")
        print(f"{' '.join(map(str, process.args))}\n{said[-4000:]}", file=sys.stderr, flush=True)
        raise RuntimeError(said[-SAID:] or f"ended with status {process.returncode}")


def _difference(one: Path, other: Path) -> float:
    from safetensors.torch import load_file

    first, second = (load_file(out / "adapter" / "adapter_model.safetensors") for out in (one, other))
    return max(float((first[key].float() - second[key].float()).abs().max()) for key in first)
