"""The speed of matrix products: measured once, kept for the day."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from loragrid.runtime import cpu_speed
from loragrid.runtime.cpu_speed import KEPT_SECONDS, cpu_has_bf16, measure_products, product_tflops


def test_products_are_measured_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1e-4 < measure_products(1, seconds=0.01) < 100
    monkeypatch.setattr(cpu_speed, "MEASURE", "print(0.5)")
    assert measure_products(3) == 1.5
    monkeypatch.setattr(cpu_speed, "MEASURE", "raise SystemExit(1)")
    with pytest.raises(subprocess.CalledProcessError):
        measure_products(2)


def test_whether_a_cpu_has_bfloat16_is_read_from_the_system(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    assert cpu_has_bf16(file) is None
    for text, found in (
        ("flags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu avx2\nbugs: bf16\n", False),
        ("Features\t: fp asimd bf16\n", True),
        ("processor : 0\n", None),
    ):
        file.write_text(text)
        assert cpu_has_bf16(file) is found, text


def test_a_measurement_is_kept_for_the_day_and_for_each_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = []
    monkeypatch.setattr(cpu_speed, "measure_products", lambda threads: measured.append(threads) or threads / 10)
    assert [product_tflops(threads) for threads in (1, 1, 2, 1)] == [0.1, 0.1, 0.2, 0.1]
    assert measured == [1, 2]
    file = tmp_path / "loragrid" / "cpu_speed.json"
    old = {key: value | {"at": value["at"] - KEPT_SECONDS} for key, value in json.loads(file.read_text()).items()}
    file.write_text(json.dumps(old))
    assert product_tflops(2) == 0.2 and measured == [1, 2, 2]
    file.write_text("{")
    assert product_tflops(1) == 0.1 and measured == [1, 2, 2, 1]
    (key,) = json.loads(file.read_text())
    for entry in ({}, 5, {"at": "now", "tflops": 1}, {"at": time.time(), "tflops": "fast"}):
        file.write_text(json.dumps({key: entry}))
        assert product_tflops(1) == 0.1
    assert measured == [1, 2, 2, 1, 1, 1, 1, 1]


def test_the_speed_is_found_where_no_cache_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(cpu_speed, "measure_products", lambda threads: threads / 10)
    assert product_tflops(2) == 0.2
