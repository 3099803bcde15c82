"""Places for copies: which texts name one, what is refused, and that no secret is shown."""

from pathlib import Path

import pytest

from loragrid.backup.places import Place, PlaceError, open_place
from loragrid.errors import UserError
from loragrid.runtime.secrets import without_secrets
from loragrid.study.checks.backup_validation import check_backup, check_backup_option


@pytest.mark.parametrize(
    "text", ["hub:me/copies", "folder:/mnt/my drive/x", "folder:x", "s3://bucket/path", "gs://b", "memory://x"]
)
def test_texts_that_name_a_place(text: str) -> None:
    check_backup_option(text)
    check_backup({"backup": text}, Path("study.yaml"))


@pytest.mark.parametrize(
    "text", ["hub:me", "hub:a/b/c", "hub:a b/c", "/mnt/x", "folder:", "s3:/x", "S3 bucket", "me/copies", "x"]
)
def test_texts_that_name_none(text: str) -> None:
    with pytest.raises(
        UserError, match=r"^--config backup: no place for copies \(.*\)\. Fix: use hub:owner/name, folder:PATH"
    ):
        check_backup_option(text)
    with pytest.raises(UserError, match=r"^study.yaml: backup: no place for copies"):
        check_backup({"backup": text}, Path("study.yaml"))


@pytest.mark.parametrize(
    "text",
    [
        "ftp://me:hunter2@host/x",
        "https://host/x?token=hunter2",
        "s3://k:hunter2@b/x",
        "abfs://c@a.dfs.core.windows.net/x?sv=2024&sig=hunter2",
        "s3://b/x?aws_secret_access_key=hunter2",
        "dav://host/x#token=hunter2",
        "https://hunter2@host/x",
        "HTTPS://hunter2@host/x",
        "sftp://ghp_0123456789hunter2abc@host/x",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UserError, match="credentials in the address") as caught:
        check_backup_option(text)
    assert "hunter2" not in str(caught.value)


def test_names_that_are_no_credentials() -> None:
    for text in ("sftp://me@host/x", "abfs://results-of-2024-and-2025@account.dfs.core.windows.net/x"):
        check_backup_option(text)


def test_a_token_in_an_address_of_no_known_form_is_not_repeated() -> None:
    with pytest.raises(UserError, match="no place for copies") as caught:
        check_backup_option("ftps:// hunter2@host/x")
    assert "hunter2" not in str(caught.value)


def test_a_drive_that_is_not_mounted_is_no_place(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^backup: .*/drive is no folder \(folder:.*\)\. Fix: mount the drive, or make "
    ):
        open_place(f"folder:{tmp_path}/drive/copies")
    assert list(tmp_path.iterdir()) == []
    open_place(f"folder:{tmp_path}/copies").check()
    assert (tmp_path / "copies").is_dir()


def test_an_address_without_its_package_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^backup: nosuch://x cannot be used \(.*\)\. Fix: install the package"):
        open_place("nosuch://x")


@pytest.mark.parametrize("text", ["reference://x", "zip://."])
def test_an_address_that_its_file_system_refuses_in_its_own_way_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=rf"^backup: {text} cannot be used \(.*\)\. Fix: check the address"):
        open_place(text)


def test_a_place_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    (tmp_path / "copies").write_text("a file")
    with pytest.raises(PlaceError, match=r"FileExistsError|NotADirectoryError"):
        open_place(f"folder:{tmp_path}/copies").check()


def test_no_error_repeats_a_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"HF_TOKEN": "hf_abcdefgh", "AWS_SECRET_ACCESS_KEY": "s3cr3ts3cr3t", "MY_PASSWORD": "correct horse"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)

    class Leaky:
        def invalidate_cache(self) -> None:
            raise OSError(f"403 for {' '.join(secrets.values())}")

    with pytest.raises(PlaceError, match="403") as caught:
        Place("x", Leaky(), "x").sizes("")
    assert not any(value in str(caught.value) for value in secrets.values())
    monkeypatch.setenv("OTHER_TOKEN", f"{secrets['HF_TOKEN']}-and-more")
    assert without_secrets(f"403 for {secrets['HF_TOKEN']}-and-more") == "403 for ***"
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert without_secrets("a false alarm") == "a false alarm"
