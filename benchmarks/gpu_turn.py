"""Run a script in its turn: gpu_turn.py LIBRARY FILE SCRIPT ARGUMENTS…

Imports what the script imports before anything else, beside whatever the card is doing; then waits for a lock on FILE, which it
holds to its end, and is the script. So of several processes started together one uses the card, and the next is ready.
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
# A turn that lasts longer is ended, or one that hangs would keep the card from all others.
MOST_SECONDS = int(os.environ.get("GPU_TURN_SECONDS", "300"))


def import_library(name: str) -> None:
    """What a run by that library needs, unsloth before the libraries that it changes."""
    if name == "unsloth":
        from loragrid.training.backends.unsloth_loading import import_unsloth

        import_unsloth()
    for module in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(module)


def main() -> None:
    """Get ready, wait, be the script."""
    library, turn, script = sys.argv[1:4]
    began = time.monotonic()
    import_library(library)
    print(f"imports took {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    with open(turn, "a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)  # a lock of this process alone: no child of it inherits it
        signal.alarm(MOST_SECONDS)
        sys.argv = sys.argv[3:]
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
