"""Names of runs and values of settings as text."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

LONGEST_NAME = 80  # characters of a run id
HASH_DIGITS = 8
# Settings with a shorter name in run ids.
SHORT_NAMES = {
    "learning_rate": "lr",
    "target_modules": "modules",
    "learning_rate_ratio": "ratio",
    "max_length_tokens": "length",
    "max_grad_norm": "clip",
    "compute_dtype": "dtype",
}


def run_name(model: str, departs: Mapping[str, Any], digest: str) -> str:
    """The id of a run: model, what departs from the base case, and the digest of its identity.

    Such as `llama-1b_rank64_alpha128_3f2a9c1d`: at most 80 characters, safe in a file name.
    """
    parts = [model]
    for name, value in departs.items():
        # The model is named already, and a choice of data or method needs no word before it.
        if name in ("data", "method", "cells"):
            parts.append(_safe(str(value)))
        elif name != "model":
            text = _safe(value_text(value))
            # rank64, but schedule-cosine.
            hyphen = "-" if text[:1].isalpha() else ""
            parts.append(SHORT_NAMES.get(name, name).replace("_", "-") + hyphen + text)
    longest = LONGEST_NAME - HASH_DIGITS - 1
    return f"{'_'.join(parts)[:longest].rstrip('_-.')}_{digest[:HASH_DIGITS]}"


def subject_at(run: str, share: float) -> str:
    """The subject of scoring that a run is after `share` of its budget; at the end the run itself."""
    return run if share == 1 else f"{run}@{share:g}"


def run_of(subject: str) -> str:
    """The run of a subject made by `subject_at`; other names are unchanged."""
    return subject.partition("@")[0]


def share_of(subject: str) -> float:
    """The share in the name of a subject, 1 without one."""
    share = subject.partition("@")[2]
    return float(share) if share else 1.0


def value_text(value: Any) -> str:
    """A setting's value in a short form: 2e-4, 16, 2x4, 80000tokens, q_proj-v_proj."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return scientific(value) if value and not 0.001 < abs(value) < 10_000 else f"{value:g}"
    if isinstance(value, Mapping):
        return "-".join(f"{value_text(amount)}{unit}" for unit, amount in value.items())
    if isinstance(value, list | tuple):
        numbers = all(isinstance(item, int) for item in value)
        return ("x" if numbers else "-").join(str(item) for item in value)
    return str(value)


def scientific(value: float) -> str:
    """The shortest scientific form, so that 0.0002 and 2.0e-4 have one name: `2e-4`."""
    mantissa, exponent = f"{Decimal(repr(float(value))).normalize():e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def _safe(text: str) -> str:
    """The text with only characters that file systems, shells and Snakemake leave alone."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", text).strip("-")
