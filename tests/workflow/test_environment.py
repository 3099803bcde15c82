"""Pins in step, and torch's CPU build where there is no GPU."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from loragrid.paths import ROOT


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    found = (re.match(r"([A-Za-z0-9_.-]+)==([^ ;]+)", line) for line in lines)
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "requirements-app.txt",
        "requirements-slurm.txt",
        "requirements-test.txt",
        "requirements-gpu.txt",
    ],
)
def test_every_requirement_is_an_exact_pin(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith(("#", "-r "))]
    assert lines and all(re.match(r"[A-Za-z0-9_.-]+==[0-9]\S*( ;.*)?$", line) for line in lines)


def test_pyproject_and_requirements_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = pins("requirements.txt")
    for requirement in project["dependencies"]:
        name, version = requirement.split("==")
        assert locked[name] == version


def test_make_study_leaves_the_words_to_the_workflow(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho python $*\n")
    python.chmod(0o755)
    (tmp_path / ".study").touch()
    command = ["make", "--silent", "study", f"VENV={tmp_path}", "CORES=2"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line for line in said if not line.startswith("make")] == [
        "python scripts/tools/run_snakemake.py --cores 2"
    ]


@pytest.mark.parametrize(
    ("name", "sources"),
    [
        ("environment.yml", ["requirements.txt"]),
        ("environment-gpu.yml", ["requirements.txt", "requirements-gpu.txt"]),
    ],
)
def test_conda_environments_take_the_same_pins(name: str, sources: list[str]) -> None:
    environment = yaml.safe_load((ROOT / name).read_text())
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    lines = [line for source in sources for line in (ROOT / source).read_text().splitlines()]
    assert pip == [line for line in lines if not line.startswith(("#", "-r "))], f"run make {name}"
    python = next(item for item in environment["dependencies"] if str(item).startswith("python="))
    assert tuple(map(int, python.removeprefix("python=").split("."))) >= (3, 11)


def test_container_recipes_have_one_image_and_the_pins_of_the_study() -> None:
    """What hadolint asks for: a tag, no recommended packages, no caches, and what is installed pinned."""
    docker, apptainer = ((ROOT / "containers" / name).read_text() for name in ("Dockerfile", "loragrid.def"))
    images = {re.search(pattern, text, re.M)[1] for pattern, text in ((r"^FROM (\S+)$", docker), (r"^From: (\S+)$", apptainer))}
    (image,) = images
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", image)
    for text in (docker, apptainer):
        code = "\n".join(line for line in text.splitlines() if not line.strip().startswith("#"))
        assert code.count("--no-install-recommends") == code.count("apt-get install") == 1
        assert "rm -rf /var/lib/apt/lists/*" in code and "sudo" not in code and "latest" not in code
        (install,) = re.findall(r"pip install .*", code)
        assert "--no-cache-dir --requirement" in install
        named = {name for name in re.findall(r"requirements[\w-]*\.txt", code)}
        assert named == {"requirements.txt", "requirements-gpu.txt"}
    ignored = (ROOT / "containers" / "Dockerfile.dockerignore").read_text().split()
    assert ignored == ["*", "!requirements.txt", "!requirements-gpu.txt"]


def test_a_cpu_machine_gets_no_cuda_package_by_name() -> None:
    cuda = ("nvidia-", "cuda-", "triton", "xformers", "unsloth", "bitsandbytes")
    assert [name for name in pins("requirements.txt") if name.startswith(cuda)] == []
    assert {"unsloth", "unsloth-zoo", "xformers", "bitsandbytes"} <= set(pins("requirements-gpu.txt"))


def test_the_uv_that_fetches_torch_is_the_one_that_resolves_the_gpu_pins() -> None:
    script = (ROOT / "scripts" / "tools" / "install_torch.sh").read_text()
    assert f"uv='uv=={pins('requirements-test.txt')['uv']}'" in script
    assert "uv pip compile --quiet --python-version 3.11 requirements-gpu.txt" in (ROOT / ".ci" / "run").read_text()


FAKE_PYTHON = """#!/bin/sh
echo "$*" >> {calls}
case "$*" in
-c*) exit 1 ;;
*--dry-run*) echo "{plan}" ;;
esac
"""


@pytest.mark.parametrize(
    ("plan", "has_card", "installs"),
    [
        ("Would install torch-2.13.0 nvidia-cublas-13", False, "-m uv pip install"),
        ("Would install torch-2.13.0+cpu", False, "-m pip install --quiet --disable-pip-version-check torch=="),
        (
            "Would install torch-2.13.0 nvidia-cublas-13",
            True,
            "-m pip install --quiet --disable-pip-version-check torch==",
        ),
    ],
)
def test_torch_is_the_cpu_build_where_there_is_no_card(
    tmp_path: Path, plan: str, has_card: bool, installs: str
) -> None:
    calls, python = tmp_path / "calls", tmp_path / "python"
    python.write_text(FAKE_PYTHON.format(calls=calls, plan=plan))
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("grep", "cut"):
        (tools / tool).symlink_to(subprocess.check_output(["sh", "-c", f"command -v {tool}"], text=True).strip())
    if has_card:
        (tools / "nvidia-smi").write_text("#!/bin/sh\n")
    for file in (python, *tools.glob("nvidia-smi")):
        file.chmod(0o755)
    script = [ROOT / "scripts/tools/install_torch.sh", tmp_path, ROOT / "requirements.txt"]
    subprocess.run(["/bin/sh", *script], check=True, env=os.environ | {"PATH": str(tools)})
    assert installs in calls.read_text().splitlines()[-1]
