"""Places for copies: a folder, a repository of the Hugging Face hub, or any file system that fsspec knows."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from loragrid.errors import UserError, first_line
from loragrid.runtime.secrets import without_secrets

HUB, FOLDER = "hub:", "folder:"
PARTIAL = ".partial"
# Protocols of fsspec by which a file is there as a whole or not at all. By others it is renamed when it is whole.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory", "hf"})


class PlaceError(Exception):
    """Why a place could not be read or written: one line without secrets."""


class Place:
    """Files at a place, named by their paths relative to it; `name` is the place as the user wrote it.

    Every method raises `PlaceError` for whatever goes wrong at the place.
    """

    def __init__(self, name: str, file_system: Any, root: str) -> None:
        self.name = name
        self.file_system, self.root = file_system, root.rstrip("/")

    def sizes(self, folder: str) -> dict[str, int]:
        """Path → bytes, of every file in a folder and the folders within it; empty if there is no such folder."""
        with _explained():
            # Another machine may have written meanwhile.
            self.file_system.invalidate_cache()
            try:
                found = self.file_system.find(f"{self.root}/{folder}", detail=True)
            except FileNotFoundError:
                return {}
        return {self._relative(path): int(facts["size"]) for path, facts in found.items()}

    def read(self, path: str) -> bytes:
        """The content of a small file."""
        with _explained():
            return self.file_system.cat_file(f"{self.root}/{path}")

    def fetch(self, path: str, to: Path) -> None:
        """Copy a file from the place to this machine."""
        to.parent.mkdir(parents=True, exist_ok=True)
        with _explained():
            self.file_system.get_file(f"{self.root}/{path}", str(to))

    def write(self, files: Mapping[str, Path | bytes]) -> None:
        """Copy files or contents to the place, one after another in the order given."""
        with _explained():
            for path, content in files.items():
                target = f"{self.root}/{path}"
                self.file_system.makedirs(target.rpartition("/")[0], exist_ok=True)
                if self._puts_whole_files:
                    self._put(content, target)
                    continue
                # In the place of a file that another copy has too: a kill must not leave half of it there.
                self._put(content, f"{target}{PARTIAL}")
                self.file_system.mv(f"{target}{PARTIAL}", target)

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files, one after another in the order given."""
        with _explained():
            for path in paths:
                self.file_system.rm_file(f"{self.root}/{path}")

    def check(self) -> None:
        """Raise `PlaceError` unless a file can be written and read."""
        probe, content = (
            "loragrid.txt",
            b"Copies of studies, written by loragrid. Each is whole once its manifest is.\n",
        )
        self.write({probe: content})
        if self.read(probe) != content:
            raise PlaceError("what was written is not what is read")

    @property
    def _puts_whole_files(self) -> bool:
        protocol = self.file_system.protocol
        names = (protocol,) if isinstance(protocol, str) else protocol
        return not OBJECT_STORES.isdisjoint(names)

    def _put(self, content: Path | bytes, target: str) -> None:
        if isinstance(content, bytes):
            self.file_system.pipe_file(target, content)
        else:
            self.file_system.put_file(str(content), target)
        if self._is_local:
            # Content first, name second, also after a power cut.
            descriptor = os.open(target, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @property
    def _is_local(self) -> bool:
        return "file" in self.file_system.protocol

    def _relative(self, path: str) -> str:
        return path.lstrip("/").removeprefix(f"{self.root.lstrip('/')}/")


class HubPlace(Place):
    """A repository of the Hugging Face hub: each change is one commit, which is whole or absent."""

    def __init__(self, name: str, file_system: Any, root: str) -> None:
        from huggingface_hub import HfApi

        super().__init__(name, file_system, root)
        self.api = HfApi()

    def read(self, path: str) -> bytes:
        """The content of a small file."""
        content = BytesIO()
        with _explained():
            self.file_system.invalidate_cache()
            self.file_system.get_file(f"{self.root}/{path}", outfile=content)
        return content.getvalue()

    def write(self, files: Mapping[str, Path | bytes]) -> None:
        """Copy files or contents to the repository in one commit."""
        from huggingface_hub import CommitOperationAdd

        added = [
            CommitOperationAdd(
                path_in_repo=path, path_or_fileobj=content if isinstance(content, bytes) else str(content)
            )
            for path, content in files.items()
        ]
        self._commit(added, f"Copy {list(files)[-1]}")

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files in one commit. The repository's history keeps them."""
        from huggingface_hub import CommitOperationDelete

        self._commit([CommitOperationDelete(path_in_repo=path) for path in paths], "Remove older copies")

    def check(self) -> None:
        """Make the repository, a private one, unless it exists; raise `PlaceError` if it cannot be written."""
        with _explained():
            self.api.create_repo(self.root, private=True, exist_ok=True)
        super().check()

    def _commit(self, operations: Sequence[Any], message: str) -> None:
        if operations:
            with _explained():
                self.api.create_commit(self.root, operations, commit_message=message)


def open_place(text: str) -> Place:
    """The place that a study's `backup` names; nothing is read or written.

    Raises `UserError` for one that cannot be used.
    """
    if text.startswith(HUB):
        from huggingface_hub import HfFileSystem

        return HubPlace(text, HfFileSystem(skip_instance_cache=True), text.removeprefix(HUB))
    import fsspec

    address = text
    if text.startswith(FOLDER):
        folder = Path(text.removeprefix(FOLDER)).expanduser().absolute()
        # A drive that is not mounted: its folder would be made on the disk that is about to be wiped.
        if not folder.parent.is_dir():
            fix = f"mount the drive, or make {folder.parent}"
            raise UserError(f"backup: {folder.parent} is no folder ({text}). Fix: {fix}.")
        address = folder.as_uri()
    try:
        file_system, root = fsspec.core.url_to_fs(address)
    except Exception as error:  # some file systems connect here, with errors of their own
        fix = "check the address and the network"
        if isinstance(error, ImportError | ValueError):
            fix = "install the package that fsspec needs for it, or choose another place"
        raise UserError(f"backup: {text} cannot be used ({_reason(error)}). Fix: {fix}.") from None
    return Place(text, file_system, root)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Every file system has errors of its own.
        raise PlaceError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    return without_secrets(f"{type(error).__name__}: {first_line(error)}")
