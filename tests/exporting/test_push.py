"""Pushing an export to a stand-in for the hub on loopback: only what is asked for, privately, and no token anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loragrid.errors import Failed, UserError
from loragrid.exporting.push import push_folder
from loragrid.paths import SCRIPTS
from loragrid.runtime.secrets import BLOCK_BYTES, secret_names_in
from loragrid.workflow.options import Options
from tests.fixtures.hub_server import LARGE_BYTES, TOKEN, HubServer

CARD = "---\nlibrary_name: peft\n---\n# A card\n"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export" / "run_01234567"
    (folder / "adapter").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(bytes(range(250)) * (LARGE_BYTES // 100))
    (folder / "adapter" / ".left").write_text("of an editor")
    return folder


def test_a_folder_is_pushed_privately_in_one_commit(hub: HubServer, export: Path, capfd) -> None:
    push_folder(export, "me/model")
    repository = hub.repositories["me/model"]
    assert repository.private and repository.commits == ["Export run_01234567"]
    weights = "adapter/adapter_model.safetensors"
    assert repository.files == {"README.md": CARD.encode(), weights: (export / weights).read_bytes()}
    said = capfd.readouterr()
    assert said.err.endswith(f"pushed {export} to {hub.url}/me/model (private)\n") and TOKEN not in said.err + said.out


def test_a_public_repository_is_refused_unless_it_is_asked_for(hub: HubServer, export: Path) -> None:
    push_folder(export, "me/shown", public=True)
    shown = hub.repositories["me/shown"]
    assert not shown.private and len(shown.commits) == 1
    with pytest.raises(UserError, match=r"^push: me/shown can be read by everybody\. Fix: make it private"):
        push_folder(export, "me/shown")
    assert len(shown.commits) == 1


@pytest.mark.parametrize("repository", ["me", "me/a/b", "https://x/y", "me/a b", "../x/y", "../..", "me/a.", ""])
def test_a_name_that_is_no_repository_is_refused(hub: HubServer, export: Path, repository: str) -> None:
    with pytest.raises(UserError, match=r"^push: no repository of the hub \(.*\)\. Fix: write push=owner/name\.$"):
        push_folder(export, repository)
    assert hub.requests == []


def test_without_a_token_or_offline_nothing_is_sent(
    hub: HubServer, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of an earlier login is not used either: only the environment asks for a push."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^push: HF_HUB_OFFLINE is set"):
        push_folder(export, "me/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(
        UserError, match=r"^push: HF_TOKEN is not set\. Fix: export HF_TOKEN with a token that may write"
    ):
        push_folder(export, "me/model")
    assert hub.requests == []


@pytest.mark.parametrize("refused", ["POST /api/repos/create", "/preupload/", "/objects/batch", "/upload/", "/commit/"])
def test_a_hub_that_refuses_is_one_line_without_the_token(hub: HubServer, export: Path, refused: str) -> None:
    """The stand-in repeats what it was sent, and the export stays."""
    hub.refused.add(refused)
    with pytest.raises(
        Failed, match=rf"^push: me/model did not take the export \(.+\); {export} is complete"
    ) as caught:
        push_folder(export, "me/model")
    assert TOKEN not in str(caught.value) and "\n" not in str(caught.value)
    assert not any(repository.files for repository in hub.repositories.values())


def test_a_file_with_a_secret_in_it_is_not_pushed(
    hub: HubServer, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    for value, name in ((TOKEN, "HF_TOKEN"), ("0123456789abcdef", "WANDB_API_KEY")):
        # Across the border of two blocks that are read.
        (export / "log.txt").write_text("." * (BLOCK_BYTES - 5) + value)
        assert secret_names_in(export / "log.txt") == [name]
        with pytest.raises(UserError, match=f"log.txt holds the value of {name}") as caught:
            push_folder(export, "me/model")
        assert value not in str(caught.value)
    assert hub.requests == []


def test_a_file_that_names_a_place_of_this_machine_is_not_pushed(hub: HubServer, export: Path) -> None:
    (export / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/anna/models/base"}')
    with pytest.raises(UserError, match=r"adapter_config.json contains a path of this machine \(/home/anna/models\)"):
        push_folder(export, "me/model", paths=["/home/berta", "/home/anna/models"])
    assert hub.requests == []


def test_a_pushing_process_leaves_the_token_nowhere(hub: HubServer, export: Path, tmp_path: Path) -> None:
    """Neither in its output, nor in any file that it wrote, its home and cache included; the hub alone was sent it."""
    code = (
        "import sys; from pathlib import Path; from loragrid.errors import run_main; "
        "from loragrid.exporting.push import push_folder; run_main(lambda: push_folder(Path(sys.argv[1]), sys.argv[2]))"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = (
        os.environ | hub.environment | {"PYTHONPATH": str(SCRIPTS), "HOME": str(home), "HF_HOME": str(home / "hf")}
    )
    for refused, status in (("/commit/", 1), (None, 0)):
        hub.refused = {refused} if refused else set()
        command = [sys.executable, "-c", code, str(export), "me/model"]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert TOKEN not in done.stdout + done.stderr and "Traceback" not in done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not [path for path in files if TOKEN.encode() in path.read_bytes()]
    assert not [path for path, content in hub.repositories["me/model"].files.items() if TOKEN.encode() in content]
    # Addresses of uploads are secrets of their own, and a card's form is checked without an account.
    given = {path: authorization for _, path, authorization in hub.requests}
    assert {authorization for path, authorization in given.items() if "/models/" in path} == {f"Bearer {TOKEN}"}
    assert not any(TOKEN in path for path in given)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, export: Path) -> list[str]:
    """The command line of the export stage, whose work is done; returns it to be added to."""
    import export as stage

    monkeypatch.setattr(stage, "export_run", lambda **_: export)
    monkeypatch.setattr(stage, "take_one_gpu", lambda: None)
    arguments = ["export.py", "--study", "demo", "--results", "results/demo"]
    monkeypatch.setattr(sys, "argv", arguments)
    return arguments


def test_the_export_stage_pushes_where_it_is_asked_to_and_only_then(hub: HubServer, stage: list[str]) -> None:
    from export import main

    main()
    assert hub.requests == []
    stage += ["--push", "me/model"]
    main()
    assert hub.repositories["me/model"].private and "README.md" in hub.repositories["me/model"].files
    stage += ["--public"]
    stage[stage.index("me/model")] = "me/shown"
    main()
    assert not hub.repositories["me/shown"].private


def test_a_push_that_cannot_be_is_refused_before_the_work(
    hub: HubServer, stage: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import export

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(export, "export_run", lambda **_: pytest.fail("the work was begun"))
    stage += ["--push", "me/model"]
    with pytest.raises(UserError, match="HF_TOKEN is not set"):
        export.main()
    with pytest.raises(UserError, match="HF_TOKEN is not set"):
        Options.read({"study": "demo", "push": "me/model"})
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    options = Options.read({"study": "demo", "push": "me/model", "public": "true"})
    assert options.export_arguments == "--push me/model --public"
    with pytest.raises(UserError, match="no repository of the hub"):
        Options.read({"study": "demo", "push": "model"})
