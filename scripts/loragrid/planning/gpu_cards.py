"""The device that a plan is made for: this machine's GPU, the study file's card, or this CPU.

Imports no torch, because the workflow reads this whenever it is parsed.
"""

import math
import subprocess
from dataclasses import dataclass, fields, replace
from functools import cache

import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.planning.step_time import CPU_OPERATION_SECONDS, CPU_SHARE, LAUNCH_SECONDS, Rate
from loragrid.runtime.cpu_speed import MEASURED_SECONDS, product_tflops, usable_cpus
from loragrid.runtime.provenance import cpu_name
from loragrid.study.sections import Plan

# ASSUME: training in float32 reaches at most half of a card's float32 peak; not measured.
FP32_SHARE = 0.5
CARDS = ROOT / "config" / "cards.yaml"


@dataclass(frozen=True, kw_only=True)
class GpuCard:
    """One row of config/cards.yaml, which explains the fields; `key` is the row's name."""

    key: str
    names: tuple[str, ...]
    memory_mib: int
    memory_from: str
    peak_tflops: float
    peak_from: str
    fp32_tflops: float
    bf16: bool
    training_tflops: float | None
    training_from: str | None


@dataclass(frozen=True, kw_only=True)
class PlannedDevice:
    """A device as a plan sees it; numbers are None if they are unknown.

    `names`: the names by which records may call such a device; `found`: it is in this machine;
    `rate_tflops`: the expected training rate; `fp32_tflops`: its peak in float32; `slowdown`: the
    rate of a model in float32, relative to other models on this device; `launch_seconds`: time to
    start an operation on it.
    """

    kind: str  # "cuda" or "cpu"
    name: str
    names: tuple[str, ...]
    found: bool
    vram_mib: int | None
    vram_from: str
    bf16: bool
    rate_tflops: float | None
    rate_from: str
    fp32_tflops: float | None = None
    slowdown: float = 1.0
    launch_seconds: float = 0.0

    def rate(self) -> Rate:
        """The rate that is expected before anything has run on the device."""
        return Rate(
            tflops=self.rate_tflops,
            source=self.rate_from,
            launch_seconds=self.launch_seconds,
            overlapping=self.kind == "cuda",
        )

    def in_float32(self) -> "PlannedDevice":
        """The device for a model in float32: its rate is at most a share of its float32 peak."""
        if self.rate_tflops is None or self.fp32_tflops is None:
            return self
        rate = FP32_SHARE * self.fp32_tflops
        if self.rate_tflops <= rate:
            return self
        source = f"not measured: {FP32_SHARE:.0%} of its float32 peak of {self.fp32_tflops} TFLOPS"
        return replace(self, rate_tflops=rate, rate_from=source, slowdown=rate / self.rate_tflops)


@cache
def read_cards() -> dict[str, GpuCard]:
    """The table of cards by key; a row with missing or unknown keys is a `UserError`."""
    rows = yaml.safe_load(CARDS.read_text(encoding="utf-8"))
    expected = {field.name for field in fields(GpuCard)} - {"key"}
    for key, row in rows.items():
        if set(row) != expected:
            different = ", ".join(sorted(set(row) ^ expected))
            raise UserError(
                f"{CARDS.name}: card {key} has missing or unknown keys ({different}). "
                "Fix: give the row the keys that the file's head lists."
            )
        row["names"] = tuple(row["names"])
    return {key: GpuCard(key=key, **row) for key, row in rows.items()}


@cache
def detect_gpu() -> tuple[str, int] | None:
    """Name and memory (MiB) of this machine's first NVIDIA GPU by its driver, or None."""
    # By the driver's own tool: importing torch would take seconds at every call of snakemake.
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        name, memory = done.stdout.strip().splitlines()[0].rsplit(",", 1)
        return name.strip(), int(memory)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None  # no driver, no GPU, or a driver that does not answer


def named_card(plan: Plan) -> GpuCard | None:
    """The card that a study's `plan` names, or None; an unknown name is a `UserError`."""
    if plan.card is None:
        return None
    cards = read_cards()
    if plan.card not in cards:
        raise UserError(
            f"plan.card: the card is not in config/cards.yaml ({plan.card!r}). Fix: use one of {', '.join(cards)}."
        )
    return cards[plan.card]


def planned_device(plan: Plan, *, detect: bool = True) -> PlannedDevice:
    """The device to plan for: this machine's GPU, else the card that `plan` names, else this CPU.

    Without `detect` this machine's GPU is ignored. An unknown card is a `UserError` in any case.
    """
    named = named_card(plan)
    gpu = detect_gpu() if detect else None
    if gpu is None and named is None:
        return _this_cpu(plan)
    if gpu is None:
        name, driver_mib, card = named.key, None, named
    else:
        name, driver_mib = gpu
        card = find_card(name)
    vram_mib, vram_from = _usable_memory(plan, driver_mib, card)
    rate, rate_from = _expected_rate(card)
    return PlannedDevice(
        kind="cuda",
        name=name,
        names=(name, *(card.names if card else ())),
        found=gpu is not None,
        vram_mib=vram_mib,
        vram_from=vram_from,
        # A card missing from the table is most likely newer than those in it.
        bf16=card.bf16 if card else True,
        rate_tflops=rate,
        rate_from=rate_from,
        fp32_tflops=card.fp32_tflops if card else None,
        launch_seconds=LAUNCH_SECONDS,
    )


def _this_cpu(plan: Plan) -> PlannedDevice:
    name = cpu_name()
    return PlannedDevice(
        kind="cpu",
        name=name,
        names=(name,),
        found=True,
        vram_mib=plan.vram_mib,
        vram_from="the study file" if plan.vram_mib else "",
        bf16=True,
        rate_tflops=None,
        rate_from="no run has finished on this machine yet",
    )


def with_measured_cpu(device: PlannedDevice, *, threads: int) -> PlannedDevice:
    """A CPU with the speed of its matrix products, which takes two seconds to measure; a GPU as it is."""
    if device.kind != "cpu":
        return device
    # More threads than CPUs take turns.
    threads = min(threads, usable_cpus())
    products = product_tflops(threads)
    source = (
        f"assumed: {CPU_SHARE:.0%} of {1000 * products:,.0f} GFLOPS, matrix products on this CPU for "
        f"{MEASURED_SECONDS:g} s on {threads} {'thread' if threads == 1 else 'threads'}, and "
        f"{1e6 * CPU_OPERATION_SECONDS:g} µs an operation; right within a factor of 2"
    )
    rate = CPU_SHARE * products
    return replace(device, rate_tflops=rate, rate_from=source, launch_seconds=CPU_OPERATION_SECONDS)


def _usable_memory(
    plan: Plan,
    driver_mib: int | None,
    card: GpuCard | None,
) -> tuple[int | None, str]:
    """Memory (MiB) that a run may use, and its source."""
    if plan.vram_mib:
        return plan.vram_mib, "the study file"
    if driver_mib is None:
        return (card.memory_mib, "cards.yaml") if card else (None, "")
    if card is None:
        return driver_mib, "the driver"
    # torch can use a little less than the driver counts.
    return min(driver_mib, card.memory_mib), "the driver and cards.yaml"


def card_key(name: str) -> str | None:
    """The key of the card that a driver calls by this name, or None.

    Names must be equal as a whole: an RTX 3090 Ti is not an RTX 3090, an L40S not an L4, a MIG
    slice not a whole card. Drivers before 2021 leave out the word NVIDIA.
    """
    wanted = _without_maker(name)
    for key, card in read_cards().items():
        if wanted in [_without_maker(known) for known in card.names]:
            return key
    return None


def find_card(name: str) -> GpuCard | None:
    """The card that a driver calls by this name, or None."""
    return read_cards().get(card_key(name))


def _without_maker(name: str) -> str:
    return " ".join(name.lower().split()).removeprefix("nvidia ")


def _expected_rate(card: GpuCard | None) -> tuple[float | None, str]:
    """Expected training rate (TFLOPS) of a card, and its source."""
    if card is None:
        return None, "the card is not in cards.yaml: known once a run has finished"
    if card.training_tflops is not None:
        return card.training_tflops, card.training_from
    reference = _nearest_measured(card)
    share = reference.training_tflops / reference.peak_tflops
    source = (
        f"not measured: {share:.0%} of the peak of {card.peak_tflops} TFLOPS, the share that a {reference.key} reaches"
    )
    return share * card.peak_tflops, source


def _nearest_measured(card: GpuCard) -> GpuCard:
    """The card of known training rate whose peak is closest; small cards are limited by their power."""
    measured = [other for other in read_cards().values() if other.training_tflops is not None]
    return min(measured, key=lambda other: abs(math.log(other.peak_tflops / card.peak_tflops)))
