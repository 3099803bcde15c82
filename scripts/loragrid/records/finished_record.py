"""A copy of a run's record that Snakemake does not delete, so that no run is trained twice.

Snakemake deletes the record, its declared output, before it runs a job again, even if only
Snakemake itself was killed and its orphaned trainer finished. The copy holds the fingerprint of
everything that determines the adapter, the code included, and the digest of every final file. An
edit of the training code or other data therefore make the copy worthless.
"""

import dataclasses
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.records.record import RunRecord, as_record
from loragrid.runtime.atomic_files import read_json, sha256_file, sha256_json, write_json

NAME = "finished.json"


def save(out: Path, record: RunRecord, *, fingerprint: dict[str, Any]) -> None:
    """Write the copy after the other final files and before `record.json`."""
    content = {"fingerprint_sha256": sha256_json(fingerprint), "files": _digests(out)}
    write_json(out / NAME, content | {"record": dataclasses.asdict(record)})


def read(out: Path, *, fingerprint: dict[str, Any]) -> RunRecord | None:
    """The record of a finished run, or None if its fingerprint or its files have changed."""
    if not (out / NAME).exists():
        return None
    try:
        kept = read_json(out / NAME)
        if (kept["fingerprint_sha256"], kept["files"]) != (sha256_json(fingerprint), _digests(out)):
            return None
        return as_record(kept["record"], RunRecord, out / NAME)
    except (UserError, OSError, KeyError, TypeError):
        return None  # The copy is damaged, so the run is trained again.


def _digests(out: Path) -> dict[str, str]:
    """Path in the run's folder → SHA-256, of the final files; a diverged run has no adapter."""
    files = [out / "losses.csv", *sorted((out / "adapter").glob("*"))]
    return {str(file.relative_to(out)): sha256_file(file) for file in files}
