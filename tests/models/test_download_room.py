"""A download without room, and a base larger than the machine, are refused by the hub's list of files or by shapes."""

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from loragrid.errors import UserError
from loragrid.models import download_room
from loragrid.models.download_room import check_download, check_machine_room, hub_cache, memory_bytes
from loragrid.study.study_file import load_study
from loragrid.workflow.preflight import check_machine

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on a disk with 2 GB left."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(9e9, 7e9, 2e9))
    return tmp_path / "hub"


def entry_of(name: str, precision: str = "4bit") -> Any:
    return replace(load_study("t4").models[name], precision=precision)


def test_a_study_s_downloads_fit_the_disk_by_their_shapes(cache: Path) -> None:
    check_machine_room([entry_of("gemma-270m")])
    with pytest.raises(
        UserError, match=r"model unsloth/Llama-3.2-1B-Instruct: the download takes 2\.5 GB, and 2\.0 GB"
    ):
        check_machine_room([entry_of("llama-1b")])
    # The dry run refuses it before any job.
    with pytest.raises(UserError, match=r"Llama-3\.2-1B-Instruct, unsloth/gemma-3-270m-it: the download takes 3\.0 GB"):
        check_machine(load_study("t4"))
    snapshot = cache / "models--unsloth--Llama-3.2-1B-Instruct" / "snapshots" / "a"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    check_machine(load_study("t4"))
    quantised = replace(entry_of("llama-3b"), hub="someone/Llama-3B-bnb-4bit")
    check_machine_room([quantised])


def test_a_base_must_fit_the_machine_s_memory(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_room, "memory_bytes", lambda: 1.2e9)
    check_machine_room([entry_of("gemma-270m", "32bit")])
    with pytest.raises(UserError, match=r"1\.2 billion weights in 16bit take 2\.5 GB of memory, .* \(1\.2 GB\)"):
        check_machine_room([entry_of("llama-1b", "16bit")])


def test_the_hub_s_own_sizes_decide_before_the_download(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [SimpleNamespace(file_size=1.5e9, will_download=True), SimpleNamespace(file_size=9e9, will_download=False)]

    def listed(hub: str, **options: Any) -> list[Any]:
        assert options["dry_run"] and options["allow_patterns"] == ["*.safetensors"]
        return files

    monkeypatch.setattr(huggingface_hub, "snapshot_download", listed)
    check_download(entry_of("llama-3b"), patterns=["*.safetensors"])
    files.append(files[0])
    with pytest.raises(UserError, match=r"the download takes 3\.0 GB, and 2\.0 GB are free .*Fix: free disk space"):
        check_download(entry_of("llama-3b"), patterns=["*.safetensors"])


def test_the_cache_is_where_the_hub_s_library_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert hub_cache() == Path("~/.cache/huggingface/hub").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hub_cache() == tmp_path / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert hub_cache() == tmp_path / "home" / "hub"


def test_a_container_s_limit_is_the_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = memory_bytes()
    assert machine > 1e8
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(download_room, "CGROUP_LIMITS", (tmp_path / "absent", limit))
    limit.write_text("max\n")
    assert memory_bytes() >= machine
    limit.write_text("1000000\n")
    assert memory_bytes() == 1_000_000
