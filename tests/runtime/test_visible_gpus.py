"""A GPU that the driver sees and torch cannot use is one line, by what the driver and torch's files say."""

import types
from collections.abc import Callable
from pathlib import Path

import pytest

from loragrid.errors import UserError
from loragrid.models.loading import torch_device
from loragrid.runtime import visible_gpus
from loragrid.runtime.visible_gpus import (
    TorchBuild,
    check_one_gpu,
    check_torch_build,
    driver_gpus,
    torch_build,
    visible_devices,
)
from tests.fixtures.nvidia_smi import T4, write_nvidia_smi

CUDA_13 = TorchBuild("2.13.0+cu130", "13.0")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this a machine with so many T4s, a driver and a torch, as far as files and the driver's tool can tell."""

    def make(*, cards: int = 1, driver: str = "580.82.07", build: TorchBuild = CUDA_13) -> None:
        monkeypatch.setenv("PATH", f"{write_nvidia_smi(tmp_path, cards=cards, driver=driver)}:/usr/bin:/bin")
        monkeypatch.setattr(visible_gpus, "torch_build", lambda: build)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        driver_gpus.cache_clear()

    yield make
    driver_gpus.cache_clear()


def test_cards_are_read_from_the_driver_and_numbered_by_cuda_s_variable(machine, monkeypatch) -> None:
    machine(cards=2)
    first, second = driver_gpus()
    assert (first.uuid, first.name, first.memory_mib, first.driver) == ("GPU-0", T4, 15360, "580.82.07")
    assert visible_devices() == ("GPU-0", "GPU-1") == (first.uuid, second.uuid)
    for given, seen in (("1", ("1",)), ("0,-1,1", ("0",)), ("", ()), ("-1", ()), (" 0, 1", ("0", "1"))):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert visible_devices() == seen


def test_torch_s_build_is_read_without_importing_it() -> None:
    import torch

    assert torch_build() == TorchBuild(torch.__version__, torch.version.cuda)


@pytest.mark.parametrize(
    ("driver", "build", "line"),
    [
        (
            "580.82.07",
            TorchBuild("2.13.0+cpu", None),
            r"torch: 2\.13\.0\+cpu is a build for CPUs, .* Tesla T4 \(driver",
        ),
        ("550.54.15", CUDA_13, r"driver: version 550\.54\.15 of the Tesla T4 is too old .* CUDA 13\.0\. .* driver 580"),
    ],
)
def test_a_card_that_torch_cannot_use_is_one_line(machine, monkeypatch, driver, build, line) -> None:
    machine(driver=driver, build=build)
    with pytest.raises(UserError, match=line) as raised:
        check_torch_build()
    assert "\n" not in str(raised.value) and "Fix: " in str(raised.value)
    # `auto` never takes the CPU in its place; who wants the CPU hides the card.
    with pytest.raises(UserError, match=line):
        torch_device()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_torch_build()
    assert torch_device() == "cpu"


def test_another_reason_is_torch_s_own(machine, monkeypatch) -> None:
    import torch

    def refuse() -> None:
        raise RuntimeError("CUDA unknown error\nmore")

    machine()
    monkeypatch.setattr(torch.cuda, "init", refuse)
    with pytest.raises(UserError, match=r"cannot use the Tesla T4 .*\(CUDA unknown error\)\. Fix"):
        torch_device()


def test_a_matching_driver_and_no_driver_pass(machine, monkeypatch, tmp_path: Path) -> None:
    machine()
    check_torch_build()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    driver_gpus.cache_clear()
    assert driver_gpus() == () == visible_devices()
    assert torch_device() == "cpu"


def test_one_job_is_not_spread_over_two_cards(monkeypatch) -> None:
    import torch

    check_one_gpu()
    monkeypatch.setattr(torch, "cuda", types.SimpleNamespace(device_count=lambda: 2))
    with pytest.raises(UserError, match=r"one job sees 2 GPUs.* Fix: set CUDA_VISIBLE_DEVICES=0"):
        check_one_gpu()
