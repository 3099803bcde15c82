"""What a proposed study costs on its device: memory of a run, and hours of the whole."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragrid.models.shape import Shape
from loragrid.planning.gpu_cards import PlannedDevice, planned_device
from loragrid.planning.job_memory import MEMORY_MARGIN, run_memory
from loragrid.planning.plan_inputs import gather_inputs
from loragrid.planning.plan_rows import base_rows, plan_row, totals
from loragrid.planning.short_jobs import other_seconds
from loragrid.proposing.proposal import Proposal
from loragrid.study.sections import Plan
from loragrid.study.study_file import Study

# ASSUME: a job may use this share of a machine's memory, the rest being other programs'; Python and its libraries take
# the MiB of the second number beside the predicted ones.
MEMORY_SHARE, LIBRARIES_MIB = 0.6, 600


@dataclass(frozen=True)
class Costs:
    """Planned rows of the runs and totals, as `plan.py` has them; `results`: where those of the study will be."""

    study: Study
    results: Path
    device: PlannedDevice
    rows: list[dict[str, Any]]
    totals: dict[str, Any]

    @property
    def hours(self) -> float:
        """Hours of the whole study from the command to the page, one job at a time."""
        return self.totals["hours"] + other_seconds(self.study) / 3600

    @property
    def updates(self) -> int:
        """Optimizer updates of a run."""
        return self.rows[0]["steps"]

    @property
    def peak_mib(self) -> int:
        """The largest predicted memory: of a run or its scoring on a GPU, of a training process on a CPU."""
        if self.device.kind == "cpu":
            return round(max(row["total_mib"] for row in self.rows)) + LIBRARIES_MIB
        scored = [row["score_mib"] for row in self.rows if row["score_mib"]]
        return round(max([row["total_mib"] for row in self.rows] + scored))


def costs_of(proposal: Proposal, results: Path) -> Costs:
    """The costs of a proposal by the plan; `results`: the study's folder, beside which earlier runs may be."""
    study = proposal.study()
    inputs = gather_inputs(study, results=results, session_minutes=None)
    rows = [plan_row(inputs, cell) for cell in study.cells]
    return Costs(study, results, inputs.device, rows, totals(rows, base_rows(inputs, rows), None))


def device_of(card: str | None) -> PlannedDevice:
    """The device that the study is planned for."""
    return planned_device(Plan(card=card, vram_mib=None, session_minutes=None, rows=None, row_tokens=500))


def memory_mib(device: PlannedDevice) -> int | None:
    """MiB that a run may use on a device; None if unknown."""
    if device.kind == "cuda":
        return device.vram_mib
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (AttributeError, OSError, ValueError):
        return None  # a system that does not say
    return round(MEMORY_SHARE * whole) - LIBRARIES_MIB


def needed_mib(proposal: Proposal, shape: Shape, device: PlannedDevice) -> int:
    """MiB that a run of the base case takes, with the margin that a job requests on a GPU."""
    study = proposal.study()
    memory = run_memory(study, study.cells[0], shape, device).total_mib
    return round(MEMORY_MARGIN * memory) if device.kind == "cuda" else memory
