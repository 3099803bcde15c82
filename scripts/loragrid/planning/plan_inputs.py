"""Inputs of a plan: the study, the device, shapes, data sizes and measurements."""

from dataclasses import dataclass
from pathlib import Path

from loragrid.errors import UserError
from loragrid.models.find_shape import find_shape
from loragrid.models.shape import Shape
from loragrid.planning.forecast import Workload, workload_of
from loragrid.planning.gpu_cards import PlannedDevice, planned_device, with_measured_cpu
from loragrid.planning.job_memory import gpu_backend, planned_layout, request_key
from loragrid.planning.job_resources import session_length
from loragrid.planning.measurements import DataSize, Measurements, data_size, read_measurements
from loragrid.study.batch_shares import StepLayout
from loragrid.study.grid import Cell
from loragrid.study.study_file import Study


@dataclass(frozen=True, kw_only=True)
class PlanInputs:
    """Inputs of a plan.

    `finished`: the cells with a measured run; `shapes`: model → shape; `missing_shapes`: model →
    why its shape is unknown; `sizes` and `workloads`: by run, workloads only for models of known
    shape, as do `layouts`, by `request_key`; `resident`: the runs that are later jobs of a resident worker.
    """

    study: Study
    device: PlannedDevice
    measured: Measurements
    finished: tuple[Cell, ...]
    shapes: dict[str, Shape]
    missing_shapes: dict[str, str]
    sizes: dict[str, DataSize]
    workloads: dict[str, Workload]
    layouts: dict[tuple, StepLayout]
    session_minutes: float | None
    resident: frozenset[str] = frozenset()


def gather_inputs(study: Study, *, results: Path, session_minutes: float | None, worker: bool = True) -> PlanInputs:
    """Read what a plan needs; `session_minutes` overrides the study file's.

    `worker`: on a GPU, the jobs of a base share a resident worker.
    """
    cells = study.cells
    device = planned_device(study.plan)
    measured = read_measurements(study, cells, results, device)
    if not measured.runs:
        device = with_measured_cpu(device, threads=study.base_case.threads)
    shapes, missing_shapes = _find_shapes(study)
    sizes, workloads = {}, {}
    known: dict[tuple, tuple[DataSize, Workload | None]] = {}
    layouts: dict[tuple, StepLayout] = {}
    # The cell of an adopted adapter need not be a run.
    for cell in (*cells, *(adopted.cell for adopted in study.adopted.values())):
        key = request_key(cell.settings)
        if key not in known:
            size, workload = data_size(study, cell, results), None
            if cell.model in shapes:
                shape = shapes[cell.model]
                layout = planned_layout(study, cell.settings, shape, device, row_tokens=size.row_tokens)
                workload = workload_of(study, cell, shape, size, layout=layout)
                layouts[key] = layout
            known[key] = size, workload
        sizes[cell.run], workload = known[key]
        if workload is not None:
            workloads[cell.run] = workload
    resident = worker and device.kind == "cuda" and study.training.gpus == 1
    return PlanInputs(
        study=study,
        device=device,
        measured=measured,
        finished=tuple(cell for cell in cells if cell.run in measured.runs),
        shapes=shapes,
        missing_shapes=missing_shapes,
        sizes=sizes,
        workloads=workloads,
        layouts=layouts,
        session_minutes=session_length(study, session_minutes),
        resident=_resident(cells) if resident else frozenset(),
    )


def _resident(cells: tuple[Cell, ...]) -> frozenset[str]:
    """All runs except the first of each base."""
    first = {(cell.base, gpu_backend(cell.settings)): cell.run for cell in reversed(cells)}
    return frozenset(cell.run for cell in cells) - set(first.values())


def _find_shapes(study: Study) -> tuple[dict[str, Shape], dict[str, str]]:
    shapes, missing = {}, {}
    for model in dict.fromkeys(cell.model for cell in (*study.cells, *study.bases.values())):
        try:
            shapes[model] = find_shape(study.models[model], network=True)
        except UserError as error:
            missing[model] = str(error)
    return shapes, missing
