"""The dtype of the merged form: the base's own if that keeps what the run learned, else float16, by measurement.

A learned change that is smaller than half a step between two numbers of 16 bits is lost when the sum is rounded. Near 1
that step is 2⁻⁷ in bfloat16 and 2⁻¹⁰ in float16, which in turn has no number above 65,504.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isnan
from pathlib import Path

from loragrid.errors import Failed, print_line
from loragrid.exporting.exported_run import ExportedRun
from loragrid.exporting.merging import MergedFacts, write_merged
from loragrid.exporting.parity import Parity
from loragrid.models.float16_range import overflows_float16
from loragrid.models.model_files import check_model_folder, resolve_folder


@dataclass(frozen=True)
class MergedForm:
    """The merged model that was kept, how it compares with the run, and the comparisons of those that were not."""

    facts: MergedFacts
    parity: Parity
    rejected: Sequence[Parity] = ()


def write_merged_form(
    run: ExportedRun, folder: Path, *, dtype: str | None, compare: Callable[[Path, str], Parity]
) -> MergedForm:
    """Write the merged model to `folder` in `dtype`, or if that is None in the first 16-bit one that matches the run.

    `compare` measures the model in a folder, given its dtype. If none matches the run, the closest is kept.
    """
    tried: list[tuple[Path, MergedForm]] = []
    try:
        _try(run, folder, dtype, compare, tried)
        if dtype is None and not tried[0][1].parity.holds and (other := _second_dtype(run, tried[0][1].facts.dtype)):
            try:
                _try(run, folder, other, compare, tried)
            except Failed as failure:  # a weight beyond the range
                print_line(f"[{run.name}] {failure}")
        place, best = min(tried, key=lambda one: _distance(one[1].parity))
        place.rename(folder)
    finally:
        # Also what a second attempt has written before it failed.
        for number in range(2):
            shutil.rmtree(_place(folder, number), ignore_errors=True)
    return MergedForm(best.facts, best.parity, [one.parity for _, one in tried if one is not best])


def _try(
    run: ExportedRun,
    folder: Path,
    dtype: str | None,
    compare: Callable[[Path, str], Parity],
    tried: list[tuple[Path, MergedForm]],
) -> None:
    """Write one merged model beside `folder`, measure it, and add both to `tried`."""
    place = _place(folder, len(tried))
    facts = write_merged(run, place, dtype)
    print_line(f"[{run.name}] merged into {facts.merged_into}; its weights are {facts.dtype}")
    tried.append((place, MergedForm(facts, compare(place, facts.dtype))))


def _place(folder: Path, number: int) -> Path:
    return folder.with_name(f"{folder.name}-{number}")


def _second_dtype(run: ExportedRun, first: str) -> str | None:
    """float16 for weights in bfloat16 of a family that computes in it; None if there is no better 16-bit dtype."""
    model_type = check_model_folder(resolve_folder(run.entry)[0])
    return "float16" if first == "bfloat16" and not overflows_float16(model_type) else None


def _distance(found: Parity) -> tuple[bool, float]:
    off = abs(found.difference)
    return not found.holds, inf if isnan(off) or found.overflows else off
