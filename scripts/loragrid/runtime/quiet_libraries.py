"""Settings that keep the libraries of a job quiet."""

import logging
import os


def quiet_libraries() -> None:
    """Switch off telemetry, progress bars and the tokenizers' own threads. Call it before the
    libraries are imported."""
    os.environ |= {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # A job's log is read afterwards: a progress bar would fill it with copies of itself.
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        # A job uses the cores that its rule declares, and tokenizers warns when a process with its
        # threads forks.
        "TOKENIZERS_PARALLELISM": "false",
    }
    quiet_bitsandbytes()


def quiet_bitsandbytes() -> None:
    """Silence the warning about an optional 4-bit kernel that each import prints where the CPU has bfloat16."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
