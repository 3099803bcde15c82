"""Run a script when it is its turn on the GPU: gpu_turn.py LIBRARY FILE SCRIPT ARGUMENTS…

First imports the script's libraries, while another process may be using the card. Then waits for a lock on FILE, keeps it to
the end, and runs the script in this process. Of several processes that start together, one uses the card and the others are
ready.
"""

import fcntl
import importlib
import os
import runpy
import signal
import sys
import time
from contextlib import suppress

LIBRARIES = ("datasets", "transformers.models.auto.modeling_auto", "bitsandbytes", "peft", "trl.trainer.sft_trainer")
# A longer turn is ended, because a hanging one would block the card for all others.
MOST_SECONDS = int(os.environ.get("GPU_TURN_SECONDS", "300"))


def import_library(name: str) -> None:
    """Import what a run by that library needs, unsloth before the libraries that it changes."""
    if name == "unsloth":
        from loragrid.training.backends.unsloth_loading import import_unsloth

        import_unsloth()
    for module in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(module)


def main() -> None:
    """Import the libraries, wait for the turn, run the script."""
    library, turn, script = sys.argv[1:4]
    began = time.monotonic()
    import_library(library)
    print(f"imports took {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    with open(turn, "a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)  # held by this process alone: children do not inherit it
        signal.alarm(MOST_SECONDS)
        sys.argv = sys.argv[3:]
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
