"""What this machine must have before a study begins here: a GPU that torch can use, packages that it asks for, room for
models."""

from loragrid.models.download_room import check_machine_room
from loragrid.runtime.optional_packages import check_liger
from loragrid.runtime.visible_gpus import check_gpu_count, check_torch_build, visible_gpu
from loragrid.scoring.vllm_engine.process import interpreter
from loragrid.study.study_file import Study


def check_machine(study: Study) -> None:
    """Raise `UserError` if the jobs of a study cannot run on this machine. Imports no torch and reads no network."""
    check_torch_build()
    check_gpu_count(study.training.gpus)
    if study.scoring.engine == "vllm":
        interpreter()
    if study.training.liger_kernels:
        check_liger(file=study.path.name, device="cpu" if visible_gpu() is None else "cuda")
    # A model in several precisions is loaded in each.
    entries = {(cell.model, cell.settings.precision): study.base_entry(cell) for cell in study.cells}
    check_machine_room(entries.values())
