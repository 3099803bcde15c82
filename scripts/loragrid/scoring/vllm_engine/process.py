"""The process of vLLM: started by the interpreter of its own environment, asked by lines of JSON."""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from loragrid.errors import Failed, UserError
from loragrid.paths import ROOT
from loragrid.runtime.delegation.residency import until_next_job
from loragrid.scoring.vllm_engine import server

# `make vllm` makes this one; the variable names another one, such as that of a conda environment.
INTERPRETER, VARIABLE = ROOT / ".venv" / "vllm" / "bin" / "python", "LORAGRID_VLLM_PYTHON"
# vLLM reports its use to its makers, asks the hub for files that are all here, and prints a page at every start.
ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
# Waits for the end of its input, then kills its process group. The input ends when this process closes it or dies.
WATCHER = ("/bin/sh", "-c", "cat > /dev/null; kill -9 0")
# A server of workers waits 20 s for one that frees its engine (`pool_workers.ENDS_WITHIN_SECONDS`).
ENDS_WITHIN_SECONDS, GROUP_ENDS_WITHIN_SECONDS = 10.0, 5.0
LOG_CHARACTERS = 20_000  # of the end of the log, in which the reason of a failure is looked for


def interpreter() -> Path:
    """The Python of vLLM's environment; raises `UserError` if there is none."""
    python = Path(os.environ.get(VARIABLE) or INTERPRETER)
    if not python.is_file():
        raise UserError(
            f"scoring.engine: vllm has no environment ({python} is missing). "
            f"Fix: run `make vllm`, or set {VARIABLE} to the Python of one."
        )
    return python


def engine_versions() -> dict[str, str]:
    """Versions of vLLM and of the libraries beside it; raises `UserError` without vLLM."""
    return _versions(interpreter())


@until_next_job
@cache
def _versions(python: Path) -> dict[str, str]:
    done = subprocess.run(
        [python, server.__file__, "--versions"], capture_output=True, text=True, env=_environment(), check=False
    )
    found = json.loads(done.stdout) if done.returncode == 0 else {}
    if "vllm" not in found:
        raise UserError(f"scoring.engine: vllm is not installed for {python}. Fix: run `make vllm`.")
    return found


def _environment() -> dict[str, str]:
    # This project's folders are not for the other interpreter.
    mine = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return ENVIRONMENT | mine


class VllmProcess:
    """One running engine; `settings` as in `server.load_engine`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Start it and wait until the model is loaded, which takes about a minute; raises `Failed`."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process)
        # vLLM computes in processes of its own, which outlive one that is killed while they load the model. A group
        # of their own also keeps signals for this job away from them: this process ends them.
        self._watcher = subprocess.Popen(
            WATCHER, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
        )
        self._process = subprocess.Popen(
            [interpreter(), server.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(),
            text=True,
            process_group=self._watcher.pid,
        )
        self._ask(settings)

    @property
    def runs(self) -> bool:
        """Whether the engine has not ended."""
        return self._process.poll() is None

    def scores(self, rows: Sequence[server.Row], adapter: tuple[int, str] | None) -> list[list[list[float]]]:
        """As `server.score`; raises RuntimeError with vLLM's message, and `Failed` if the engine ended."""
        return self._ask({"kind": "score", "rows": rows, "adapter": adapter})["scores"]

    def tokens(
        self, rows: Sequence[server.Row], adapter: tuple[int, str] | None, settings: dict[str, Any]
    ) -> list[list[int]]:
        """As `server.generate`; raises as `scores`."""
        return self._ask({"kind": "generate", "rows": rows, "adapter": adapter} | settings)["tokens"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._ended()
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"vllm: {answer['error']}")
        return answer

    def _ended(self) -> Failed:
        status = self._process.wait()
        self._log.seek(max(0, self._log.tell() - LOG_CHARACTERS))
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        # The engine's own process prints the cause, and the process that waits for it a pointer to that.
        errors = [line for line in lines if "Error" in line and "see" not in line.lower()]
        reason = (errors or lines or ["it printed nothing"])[-1].strip()[-300:]
        return Failed(f"vllm ended with status {status} ({reason})")

    def close(self) -> None:
        """End the engine and all that it started; its memory is free then."""
        with contextlib.suppress(OSError):  # the engine has ended, and left a request unread
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDS_WITHIN_SECONDS)
        self._watcher.stdin.close()
        self._watcher.wait()
        self._process.wait()
        self._wait_for_group()
        self._process.stdout.close()
        self._log.close()

    def _wait_for_group(self) -> None:
        """Wait until the killed processes have given their memory back; not for one that nobody reaps."""
        until = time.monotonic() + GROUP_ENDS_WITHIN_SECONDS
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < until:
                os.killpg(self._watcher.pid, 0)
                time.sleep(0.02)
