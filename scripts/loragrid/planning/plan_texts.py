"""Figures and settings of a plan as text."""

import json
import re
from typing import Any

UNKNOWN = "?"
# Its makers print 20 % for full fine-tuning on eight A100s, which says nothing of LoRA on one card.
LIGER_LINE = (
    "liger's kernels: the hours are those without them, because their speed with LoRA is not measured; "
    "of their memory the loss is counted, the others are not measured"
)
SENTENCE_END = re.compile(r"(?<=\.)(?<! al\.) (?=[A-Z0-9`])")


def known(value: float | None, number_format: str, unit: str = "") -> str:
    """A figure in that format, with its unit, or a question mark."""
    return UNKNOWN if value is None else f"{value:{number_format}}{unit}"


def setting(value: Any) -> str:
    """A value as in a study file, in one line."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False).replace('"', "")


def last_sentence(text: str) -> str:
    """The last sentence of a description, which is its reason."""
    return SENTENCE_END.split(text)[-1]


def count(value: float | None) -> str:
    """A count in short: 11.3 M."""
    if value is None:
        return UNKNOWN
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def hours(value: float | None) -> str:
    """Hours as people say them: 33 min, 1 h 33 min; seconds below one minute."""
    if value is None:
        return UNKNOWN
    minutes = round(value * 60)
    if minutes < 1:
        return f"{value * 3600:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def layout_lines(cells: list[dict[str, Any]]) -> list[str]:
    """A line for each way in which updates run that the study file does not write, with its models."""
    models: dict[str, list[str]] = {}
    for row in cells:
        if row["rows_per_pass"] is None:
            continue
        parts = []
        if row["rows_per_pass"] > row["per_device"]:
            parts.append(
                f"batch {row['per_device']} x {row['accumulation']} runs as {row['rows_per_pass']} x {row['passes']}, "
                "with the same gradient"
            )
        if row["checkpointing"]:
            parts.append("activations are computed again, a third of the time, because the card has no room for them")
        if parts:
            models.setdefault("; ".join(parts), []).append(row["model"])
    return [f"Updates of {', '.join(dict.fromkeys(names))}: {text}" for text, names in models.items()]
