"""The folder for a Space: complete, pinned, and able to start without the project."""

import os
import signal
import venv
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import httpx
import pytest
import yaml
from packaging.utils import canonicalize_name

from loragrid.app.catalogue import Catalogue, from_json
from loragrid.errors import UserError
from loragrid.study.sections import ModelEntry
from tests.app.test_app_server import ask_plan, client_of
from tests.fixtures.app_toys import finished_study, free_port, running, toy_catalogue, wait_for
from tools.make_space import closure, make_space, readme


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory, toy_llama: Path) -> Catalogue:
    return toy_catalogue(finished_study(tmp_path_factory.mktemp("app"), toy=toy_llama))


@pytest.fixture(scope="module")
def space(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "space"
    make_space(catalogue=catalogue, out=out)
    return out


def test_holds_all_it_needs_under_relative_paths(space: Path, catalogue: Catalogue) -> None:
    text = (space / "catalogue.json").read_text()
    assert str(space) not in text and str(Path(catalogue.report).parent) not in text and '"/' not in text
    found = from_json(space / "catalogue.json")
    assert found.start == catalogue.start and Path(found.report).read_text() == Path(catalogue.report).read_text()
    for subject in found.subjects[1:]:
        assert (Path(subject.adapter) / "adapter_model.safetensors").is_file()
    assert (Path(found.models["toy"].path) / "model.safetensors").is_file()
    assert not [path for path in space.rglob("*") if path.suffix in (".bin", ".pt", ".pyc")]


def test_front_page_has_the_header_that_the_hub_reads(space: Path, catalogue: Catalogue) -> None:
    for title in (catalogue.title, 'A "quoted": title\n- with [signs] #1', "yes", "{{x}}"):
        header = yaml.safe_load(readme(replace(catalogue, title=title)).split("---")[1])
        assert header["title"] == " ".join(title.split())
        assert (header["sdk"], header["app_file"]) == ("gradio", "app.py")
        assert f"gradio=={header['sdk_version']}" in (space / "requirements.txt").read_text().splitlines()


def test_requirements_are_the_projects_pins_and_no_more(root: Path, space: Path) -> None:
    lines = (space / "requirements.txt").read_text().splitlines()
    known = {
        line for name in ("requirements.txt", "requirements-app.txt") for line in (root / name).read_text().splitlines()
    }
    assert set(lines) <= known and {"torch==2.13.0"} <= {line.split(" ")[0] for line in lines}
    names = {line.split("==")[0] for line in lines}
    assert {"gradio", "peft", "transformers", "icalendar", "uvicorn", "jinja2", "tokenizers"} <= names
    assert not names & {"snakemake", "lm-eval", "trl", "pytest", "bitsandbytes"}
    assert closure(["bitsandbytes"])[0].startswith("bitsandbytes==")


def test_a_folder_of_others_is_never_replaced(catalogue: Catalogue, space: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        make_space(catalogue=catalogue, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (space / "old").write_text("x")
    make_space(catalogue=catalogue, out=space)
    assert not (space / "old").exists() and (space / "app.py").is_file()


def test_a_base_from_the_hub_stays_there(catalogue: Catalogue, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages }}")
    entry = ModelEntry(hub="some/model", revision="abc", precision="4bit", chat_template=str(template))
    make_space(catalogue=replace(catalogue, models={"toy": entry}), out=tmp_path / "space")
    found = from_json(tmp_path / "space" / "catalogue.json").models["toy"]
    assert found.hub == "some/model" and Path(found.chat_template).read_text() == "{{ messages }}"
    assert any(
        line.startswith("bitsandbytes==") for line in (tmp_path / "space/requirements.txt").read_text().splitlines()
    )


def clean_python(requirements: Path, folder: Path) -> Path:
    """The interpreter of a new environment with only the packages of `requirements`, linked from this environment."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/*/site-packages"))
    wanted = {canonicalize_name(line.split("==")[0]) for line in requirements.read_text().splitlines() if "==" in line}
    for distribution in metadata.distributions():
        if canonicalize_name(distribution.name) in wanted:
            for top in {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
                if not (site / top).exists():
                    (site / top).symlink_to(Path(distribution.locate_file(top)).resolve())
    return folder / "bin" / "python"


@pytest.mark.long
def test_starts_on_its_own_as_the_hub_starts_it(space: Path, tmp_path: Path) -> None:
    """With only the packages in the folder's requirements."""
    python = clean_python(space / "requirements.txt", tmp_path / "environment")
    assert not list((tmp_path / "environment").glob("lib/*/site-packages/optuna"))
    work = tmp_path / "work"
    work.mkdir()
    address = f"http://127.0.0.1:{(port := free_port())}/"
    environment = {"PATH": os.environ["PATH"], "HOME": str(work), "GRADIO_SERVER_PORT": str(port)}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": str(work)}
    environment |= {"SPACE_ID": "someone/space", "SYSTEM": "spaces", "GRADIO_SERVER_NAME": "0.0.0.0"}
    command = [str(python), "-E", "-s", "-B", str(space / "app.py")]
    with running(command, ended_by=signal.SIGTERM, cwd=work, env=environment) as process:
        page = wait_for(address, process)
        assert page.status_code == 200 and "learning rate 0.02" in page.text
        assert httpx.get(address, headers={"host": "someone-space.hf.space"}).status_code == 200
        assert "https://huggingface.co" in page.headers["content-security-policy"]
        assert "seed 3407" in ask_plan(client_of(address))[0]
    assert "app: stopped" in process.said and "Traceback" not in process.said
    assert [path for path in work.rglob("*") if path.is_file()] == []
