"""The app's command line: a user's mistake gives one line, and the app starts and stops cleanly."""

import os
import signal
import sys
from pathlib import Path

import httpx
import pytest

import app
from loragrid.app import server
from loragrid.errors import UserError
from tests.fixtures.app_toys import finished_study, free_port, running, wait_for


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", *map(str, arguments)])
    app.main()


@pytest.fixture
def study(tmp_path: Path, toy_llama: Path):
    return finished_study(tmp_path, toy=toy_llama)


def test_mistakes_are_one_line(monkeypatch: pytest.MonkeyPatch, study, tmp_path: Path) -> None:
    here = ("--study", study.path, "--results", tmp_path / "results")
    for arguments, message in (
        (
            ("--study", study.path, "--results", tmp_path / "none"),
            "no finished run. Fix: run `snakemake --cores 1 --config study=.*` first",
        ),
        ((*here, "--run", "nonsense"), r"no run has this id \(nonsense\)"),
        ((*here, "--model", "toy"), r"--model: given without --adapter \(toy\)"),
        (
            (*here, "--host", "0.0.0.0"),
            "--host 0.0.0.0: others could open the app without a login. Fix: add --login FILE",
        ),
        ((*here, "--host", "::"), r"--host \[::\]: others could open the app without a login. Fix: add --login FILE"),
        ((*here, "--share"), "--share: others could open the app without a login. Fix: add --login FILE"),
        ((*here, "--login", tmp_path / "none"), "not readable"),
        (("--study", "nonsense"), "study 'nonsense': unknown"),
    ):
        with pytest.raises(UserError, match=message):
            run_main(monkeypatch, *arguments)


def test_both_forms_of_the_loopback_ipv6_address_are_accepted(
    monkeypatch: pytest.MonkeyPatch, study, tmp_path: Path
) -> None:
    served = []
    monkeypatch.setattr(server, "serve_until_stopped", lambda catalogue, options: served.append(options.host))
    for host in ("::1", "[::1]", "localhost"):
        run_main(monkeypatch, "--study", study.path, "--results", tmp_path / "results", "--host", host)
    assert served == ["[::1]", "[::1]", "localhost"]


@pytest.mark.parametrize("text", ["", "ada", "ada:", ":x", "ada:x\nben"])
def test_a_login_file_needs_names_and_passwords(tmp_path: Path, text: str) -> None:
    path = tmp_path / "users"
    path.write_text(text)
    with pytest.raises(UserError, match="no name:password pair"):
        app.read_login(path)


def test_login_file(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("ada:pass:word\n\nben: x y\n")
    assert app.read_login(path) == (("ada", "pass:word"), ("ben", " x y"))


def test_starts_prints_its_address_and_stops(study, root: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    command = [
        sys.executable,
        str(root / "scripts/app.py"),
        "--study",
        str(study.path),
        "--results",
        str(tmp_path / "results"),
    ]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(work)}
    command += ["--port", str(port := free_port())]
    with running(command, ended_by=signal.SIGINT, cwd=work, env=environment) as process:
        assert wait_for(f"http://127.0.0.1:{port}/", process).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.2:{port}/")
    assert process.returncode == 0
    assert (
        f"app: open http://127.0.0.1:{port}/ (press Ctrl-C to stop)" in process.said and "app: stopped" in process.said
    )
    assert [path for path in work.rglob("*") if path.is_file()] == []
