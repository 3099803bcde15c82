"""The digests of a result folder's files, by which a file that has changed since is found wherever it is read.

A stage writes `sealed.json` when its other files are complete, right before the record that Snakemake waits for, which
says with the key `sealed` that there is one. A folder from before there were digests has neither: its files are read as
they are, and `make verify` names the folder.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.runtime.atomic_files import read_json, sha256_bytes, sha256_file, write_json
from loragrid.runtime.file_digests import session_sha256

SEAL = "sealed.json"
SCHEMA = 1
# Key of a record, the last file written to its folder: the folder has a seal.
SEALED = "sealed"
RECORDS = ("record.json", "score.json", "card.json", "compare.json", "export.json")
# FOLDER/along/SHARE/adapter/FILE is the file deepest in a folder with a seal.
DEEPEST = 4


def digests_of(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of files by their path in `folder`."""
    return {file.relative_to(folder).as_posix(): sha256_file(file) for file in sorted(files)}


def write_seal(folder: Path, digests: Mapping[str, str], *, record: str, text: str) -> None:
    """Seal a folder's files, and its `record` with the `text` that the caller writes next."""
    files = dict(digests) | {record: sha256_bytes(text.encode())}
    write_json(folder / SEAL, {"schema": SCHEMA, "files": files})


def break_seal(folder: Path) -> None:
    """Remove the seal of a folder whose files are about to change."""
    (folder / SEAL).unlink(missing_ok=True)


def sealed_files(folder: Path) -> dict[str, str] | None:
    """The digests of a folder's seal, None without one. Raises `UserError` for a damaged seal."""
    file = folder / SEAL
    if not file.is_file():
        return None
    try:
        kept = read_json(file)
    except UserError:
        kept = None  # its fix, to delete the file, would end the check
    files = kept.get("files") if isinstance(kept, dict) else None
    if not isinstance(files, dict) or kept.get("schema") != SCHEMA:
        raise UserError(f"{file}: no digests of files. Fix: restore it, or delete {folder} and run snakemake again.")
    return files


def changed_files(folder: Path) -> list[str]:
    """The files of a sealed folder that have changed or are gone; none for a folder without a seal."""
    files = sealed_files(folder) or {}
    return [name for name, digest in files.items() if _digest(folder / name) != digest]


def check_sealed(*paths: Path) -> None:
    """Raise `UserError` for a file that is not the one that its stage wrote, or that was removed.

    Of a folder, all of its sealed files are checked. What has no digest is left to its reader. Raises it too if the
    seal itself was removed.
    """
    seals: dict[Path, Any] = {}
    for path in paths:
        root = _sealed_root(path)
        if root is None:
            _check_never_sealed(path)
            continue
        if root not in seals:
            seals[root] = sealed_files(root)
        name = path.relative_to(root).as_posix()
        for sealed, digest in seals[root].items():
            if name not in (".", sealed) and not sealed.startswith(f"{name}/"):
                continue
            found = _digest(root / sealed)
            if found != digest:
                what = "changed" if found else "removed"
                raise UserError(
                    f"{root / sealed}: {what} since it was written (its sha256 is not that of {SEAL}). "
                    f"Fix: restore it, or delete {root} and run snakemake again."
                )


def _sealed_root(path: Path) -> Path | None:
    """The folder whose seal holds a file or a folder; None without a seal."""
    for folder in [path, *path.parents][: DEEPEST + 1]:
        if (folder / SEAL).is_file():
            return folder
    return None


def _check_never_sealed(path: Path) -> None:
    for folder in [path, *path.parents][: DEEPEST + 1]:
        if says_sealed(folder):
            raise UserError(
                f"{folder / SEAL}: removed since it was written, so nobody can tell whether the files are as they "
                f"were. Fix: restore it, or delete {folder} and run snakemake again."
            )


def says_sealed(folder: Path) -> bool:
    """Whether a record in the folder says that the folder has a seal."""
    return any((folder / name).is_file() and _is_sealed(folder / name) for name in RECORDS)


def _is_sealed(record: Path) -> bool:
    try:
        kept = read_json(record)
    except UserError:
        return False  # its reader says what is wrong with it
    return isinstance(kept, dict) and kept.get(SEALED) is True


def _digest(file: Path) -> str | None:
    return session_sha256(file) if file.is_file() else None
