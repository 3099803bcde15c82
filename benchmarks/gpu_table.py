"""The GPU benchmark's lines in the README: every row, and the ratios of loragrid's rows to the peers'."""

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu_runs import WITH_LIGER

LISTS = ("step_seconds_all", "loss_tokens_all", "failed", "because")


def gpu_rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(what, figure, goal) for each row of one piece's file; an incomplete piece is marked."""
    piece = f"GPU {found['piece']}" + ("" if found["complete"] else ", incomplete")
    for row in found["rows"]:
        shown = {key: value for key, value in row.items() if key not in LISTS and value is not None}
        name = ", ".join(f"{key} {value}" for key, value in shown.items() if not isinstance(value, float | dict))
        figures = [f"{key} {value:.4g}" for key, value in shown.items() if isinstance(value, float)]
        figures += [
            f"{what} {most:.3g}" for value in shown.values() if isinstance(value, dict) for what, most in value.items()
        ]
        outcome = row.get("failed") or row.get("because") or "; ".join(figures)
        yield (
            f"{piece}: {name}",
            outcome.replace("|", "/").replace("\n", " "),
            "off within ±0.1" if "off" in row else "",
        )
    if found["piece"] == "scoring":
        yield from _engine_ratios(found["rows"], piece)
    if found["piece"] == "train":
        yield from _ratios([row for row in found["rows"] if "useful_tokens_per_second" in row], piece)


def _engine_ratios(rows: list[dict[str, Any]], piece: str) -> Iterator[tuple[str, str, str]]:
    """Seconds of `lm_eval` and of transformers over those of our faster ways."""
    seconds = {row["way"]: row["seconds"] for row in rows if "seconds" in row}
    for slow, fast in (("lm_eval", "hf"), ("hf", "vllm"), ("lm_eval", "vllm")):
        if slow in seconds and fast in seconds:
            yield f"{piece}: seconds of {slow} over those of {fast}", f"{seconds[slow] / seconds[fast]:.2f}", ""


def _ratios(rows: list[dict[str, Any]], piece: str) -> Iterator[tuple[str, str, str]]:
    """Ratios of useful tokens per second: loragrid to the library alone with the same settings, packed loragrid to the padded
    library, loragrid to the library's defaults, and one folded batch to several."""

    def pace(way: str, row: dict[str, Any], **other: Any) -> float | None:
        same = {key: row[key] for key in ("shape", "precision", "dtype", "rank", "steps")}
        same |= {key: row[key] for key in ("per_device", "accumulation", "packing")} | other | {"way": way}
        return next((r["useful_tokens_per_second"] for r in rows if same.items() <= r.items()), None)

    for row in rows:
        way, library = row["way"], row["way"].removeprefix("loragrid, ")
        if library == way:
            continue
        how, padded = "packed" if row["packing"] else "not packed", {"packing": False}
        unfolded = padded | {"per_device": 2, "accumulation": 4}
        to = [(f"{library} alone, both {how}", pace(library, row), "≥ 1.0")]
        if row["packing"]:
            to.append((f"{library} alone padded", pace(library, row, **padded), "≥ 2.0"))
        to.append(
            (f"{library} alone by its own defaults, 2 × 4", pace(f"{library}, its own defaults", row, **unfolded), "")
        )
        if way.endswith(WITH_LIGER):
            to = [("its own without liger", pace(way.removesuffix(WITH_LIGER), row), "")]
        if row["accumulation"] == 1:
            to.append(("its own at 2 × 4", pace(way, row, **unfolded), ""))
        batch = f"{row['per_device']} × {row['accumulation']}"
        setting = f"{row['shape']}, {row['precision']}, {row['dtype']}, {batch}, {how}, {way}"
        for whose, other, goal in to:
            if other:
                ratio = f"{row['useful_tokens_per_second'] / other:.2f}"
                yield f"{piece}: {setting}: useful tokens/s to {whose}", ratio, goal
