"""The card that a plan is made for: the one that is here, or the one that the study file names. Imports no torch."""

import subprocess
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import yaml

from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.runtime.provenance import cpu_name
from loragrid.study.sections import Plan

# ASSUME: training in float32 reaches at most this share of a card's float32 peak; none was measured.
FP32_SHARE = 0.5
CARDS = ROOT / "config" / "cards.yaml"
REFERENCE = "T4"  # whose share of its peak is taken for a card that nobody has told a rate of
KEYS = {"names", "memory_mib", "memory_from", "peak_tflops", "peak_from", "fp32_tflops", "bf16"}
KEYS |= {"training_tflops", "training_from"}


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a plan reckons with. `rate_tflops` is what training is expected to reach, None where nothing is known."""

    kind: str  # "cuda" or "cpu"
    name: str
    names: tuple[str, ...]  # what records of the same kind of device may call it
    found: bool  # it is in this machine
    vram_mib: int | None
    vram_from: str
    bf16: bool
    rate_tflops: float | None
    rate_from: str
    fp32_tflops: float | None = None  # its peak there, None where nothing is known
    slowdown: float = 1.0  # of a model in float32, to others on this device

    def in_float32(self) -> "Device":
        """The same device for a model that it computes in float32: no faster than a share of its peak there."""
        if self.rate_tflops is None or self.fp32_tflops is None or self.rate_tflops <= FP32_SHARE * self.fp32_tflops:
            return self
        told = f"not measured: {FP32_SHARE:.0%} of its float32 peak of {self.fp32_tflops} TFLOPS"
        rate = FP32_SHARE * self.fp32_tflops
        return replace(self, rate_tflops=rate, rate_from=told, slowdown=rate / self.rate_tflops)


@cache
def read_cards() -> dict[str, dict[str, Any]]:
    """The table of cards; a row without all its keys is a `UserError`."""
    cards = yaml.safe_load(CARDS.read_text(encoding="utf-8"))
    for key, card in cards.items():
        if set(card) != KEYS:
            different = ", ".join(sorted(set(card) ^ KEYS))
            raise UserError(f"{CARDS.name}: card {key}: has too few or too many keys ({different}): mend the row")
    return cards


@cache
def gpu_here() -> tuple[str, int] | None:
    """Name and memory (MiB) of this machine's first NVIDIA GPU as its driver tells them; None without one."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        name, memory = done.stdout.strip().splitlines()[0].rsplit(",", 1)
        return name.strip(), int(memory)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None  # no driver, no card, or a driver that does not answer: the study file's card is planned for


def named_card(plan: Plan) -> dict[str, Any] | None:
    """The row of the card that a study's `plan` names, None if it names none; an unknown one is a `UserError`."""
    cards = read_cards()
    if plan.card is not None and plan.card not in cards:
        raise UserError(f"plan.card: {plan.card!r} is not in config/cards.yaml: take one of {', '.join(cards)}")
    return cards.get(plan.card)


def choose_device(plan: Plan, *, look: bool = True) -> Device:
    """The device of a study's `plan` section: the GPU that is here (without `look` none is), else the card it names, else
    this CPU."""
    named_card(plan)
    cards, here = read_cards(), gpu_here() if look else None
    if here is None and plan.card is None:
        cpu = cpu_name()
        return Device(
            kind="cpu",
            name=cpu,
            names=(cpu,),
            found=True,
            vram_mib=plan.vram_mib,
            vram_from="the study file" if plan.vram_mib else "",
            bf16=True,
            rate_tflops=None,
            rate_from="no run has finished on this machine yet",
        )
    name, memory = here or (plan.card, None)
    row = plan.card if here is None else card_key(name)
    card = cards.get(row)
    told = [(plan.vram_mib, "the study file"), (memory, "the driver"), (card and card["memory_mib"], "cards.yaml")]
    if here and card:  # torch can use a little less than the driver counts
        told[1] = (min(memory, card["memory_mib"]), "the driver and cards.yaml")
    vram, vram_from = next((value, source) for value, source in told if value)
    rate, rate_from = _rate(row, cards)
    return Device(
        kind="cuda",
        name=name,
        names=(name, *(card["names"] if card else ())),
        found=here is not None,
        vram_mib=vram,
        vram_from=vram_from,
        bf16=card["bf16"] if card else True,
        rate_tflops=rate,
        rate_from=rate_from,
        fp32_tflops=card["fp32_tflops"] if card else None,
    )


def card_key(name: str) -> str | None:
    """The row of the card that a driver calls by this name: whole, since an RTX 3090 Ti is no RTX 3090, an L40S no L4, and a
    MIG slice no whole card. Drivers before 2021 leave NVIDIA out."""
    plain = _without_maker(name)
    rows = (key for key, card in read_cards().items() if plain in map(_without_maker, card["names"]))
    return next(rows, None)


def find_card(name: str) -> dict[str, Any] | None:
    """The card of that name, None where the table does not know it."""
    return read_cards().get(card_key(name))


def _without_maker(name: str) -> str:
    return " ".join(name.lower().split()).removeprefix("nvidia ")


def _rate(row: str | None, cards: dict[str, dict[str, Any]]) -> tuple[float | None, str]:
    """Training TFLOPS of a card and where they come from."""
    if row is None:
        return None, "the card is not in cards.yaml: known when a run has finished"
    card, reference = cards[row], cards[REFERENCE]
    if card["training_tflops"] is not None:
        return card["training_tflops"], card["training_from"]
    share = reference["training_tflops"] / reference["peak_tflops"]
    return (
        share * card["peak_tflops"],
        f"not measured: {share:.0%} of the peak of {card['peak_tflops']} TFLOPS, the share that a {REFERENCE} reaches",
    )
