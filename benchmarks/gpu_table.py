"""The GPU benchmark's lines of the page: every row, and what loragrid's are to the peers'."""

from collections.abc import Iterator
from typing import Any

LISTS = ("step_seconds_all", "failed", "because")


def gpu_rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(what, figure, goal) of one piece's file; a piece that is not complete says so."""
    piece = f"GPU {found['piece']}" + ("" if found["complete"] else ", incomplete")
    for row in found["rows"]:
        shown = {key: value for key, value in row.items() if key not in LISTS and value is not None}
        name = ", ".join(f"{key} {value}" for key, value in shown.items() if not isinstance(value, float | dict))
        figures = [f"{key} {value:.4g}" for key, value in shown.items() if isinstance(value, float)]
        figures += [
            f"{what} {most:.3g}" for value in shown.values() if isinstance(value, dict) for what, most in value.items()
        ]
        told = row.get("failed") or row.get("because") or "; ".join(figures)
        yield f"{piece}: {name}", told.replace("|", "/").replace("\n", " "), "off within ±0.1" if "off" in row else ""
    if found["piece"] == "train":
        yield from _ratios([row for row in found["rows"] if "useful_tokens_per_second" in row], piece)


def _ratios(rows: list[dict[str, Any]], piece: str) -> Iterator[tuple[str, str, str]]:
    """Useful tokens per second to the library alone, at the same settings and, packed, to it padded."""

    def pace(way: str, row: dict[str, Any], packing: bool) -> float | None:
        same = {key: row[key] for key in ("shape", "precision", "per_device", "dtype", "rank", "accumulation", "steps")}
        wanted = same | {"way": way, "packing": packing}
        return next((r["useful_tokens_per_second"] for r in rows if wanted.items() <= r.items()), None)

    for row in rows:
        library = row["way"].removeprefix("loragrid, ")
        if library == row["way"]:
            continue
        setting = f"{row['shape']}, {row['precision']}, {row['dtype']}, batch {row['per_device']}"
        how = "packed" if row["packing"] else "padded"
        alike, padded = pace(library, row, row["packing"]), pace(library, row, False)
        if alike:
            ratio = f"{row['useful_tokens_per_second'] / alike:.2f}"
            yield f"{piece}: {setting}: useful tokens/s to {library} alone, both {how}", ratio, "≥ 1.0"
        if row["packing"] and padded:
            ratio = f"{row['useful_tokens_per_second'] / padded:.2f}"
            yield f"{piece}: {setting}: packed, useful tokens/s to {library} alone padded", ratio, "≥ 2.0"
