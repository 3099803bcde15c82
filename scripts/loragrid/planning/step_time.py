"""Seconds of training beyond arithmetic: starting operations on a GPU, and starting a job. Imports no torch."""

from dataclasses import dataclass

from loragrid.models.shape import Shape

# Operations that a layer starts in a forward, a repeated forward and a backward pass, LoRA on every linear map.
# Counted on a CPU (transformers 5.17, PEFT 0.21).
OPERATIONS_PER_LAYER, GEMMA_OPERATIONS_PER_LAYER = 327, 472
# Without checkpointing no forward pass is repeated; a backward pass starts about twice as many as a forward pass.
WITHOUT_RECOMPUTATION = 3 / 4
# ASSUME: Python and the driver start an operation in 10 µs; not measured here. A GPU that works faster waits.
LAUNCH_SECONDS = 1e-5
# ASSUME: a CPU trains at 80% of the speed of its matrix products, and an operation of a small model takes
# 50 µs beyond its arithmetic: the demo's runs took about that on one core.
CPU_SHARE, CPU_OPERATION_SECONDS = 0.8, 5e-5
# ASSUME: on Colab a job imports its libraries in 35 to 45 s and loads its base in 10 to 20 s.
IMPORT_SECONDS, LOAD_SECONDS = 40, 15


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Expected training rate: TFLOPS (None if unknown), its source, and seconds to start an operation.

    `launch_seconds` is 0 for a rate that was measured on the same model, which contains them. A GPU
    computes while the next operation is started (`overlapping`), a CPU does not.
    """

    tflops: float | None
    source: str
    launch_seconds: float = 0.0
    overlapping: bool = True


def operations_per_pass(shape: Shape, *, checkpointing: bool) -> float:
    """Operations that one micro-batch starts, whatever its number of tokens."""
    per_layer = OPERATIONS_PER_LAYER
    if shape.model_type.startswith("gemma"):
        per_layer = GEMMA_OPERATIONS_PER_LAYER
    return shape.layers * per_layer * (1 if checkpointing else WITHOUT_RECOMPUTATION)


def training_seconds(flops: float, operations: float, rate: Rate) -> float | None:
    """Seconds of training: of arithmetic and of starting operations, the longer of both if they overlap."""
    if rate.tflops is None:
        return None
    arithmetic, starting = flops / (rate.tflops * 1e12), operations * rate.launch_seconds
    return max(arithmetic, starting) if rate.overlapping else arithmetic + starting


def start_seconds(kind: str, *, backend: str, resident: bool) -> float:
    """Seconds until a job of a backend trains; 0 on a CPU, where jobs share a process that has imported everything.

    `resident`: a later job of a resident worker, which has imported the libraries and, for `trl`, loaded the base.
    """
    if kind != "cuda":
        return 0.0
    if not resident:
        return IMPORT_SECONDS + LOAD_SECONDS
    # unsloth changes the base that it loads, so each of its runs loads one.
    return LOAD_SECONDS if backend == "unsloth" else 0.0
