"""A copy of a run's record that Snakemake knows nothing of, so that a run that is finished is never trained again.

Snakemake deletes the record, the output that it declares, before it runs a job again: also where only Snakemake was killed
and its orphaned trainer came to the end. The copy holds the fingerprint of all that decides the adapter, the code included,
and the digest of every final file: an edit of the training code or other data make it worthless, as they should.
"""

import dataclasses
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.records.record import RunRecord, as_record
from loragrid.runtime.atomic_files import read_json, sha256_file, sha256_json, write_json

NAME = "finished.json"


def keep_record(out: Path, record: RunRecord, *, fingerprint: dict[str, Any]) -> None:
    """Leave the copy; the final files lie there already, `record.json` comes after it."""
    content = {"fingerprint_sha256": sha256_json(fingerprint), "files": _digests(out)}
    write_json(out / NAME, content | {"record": dataclasses.asdict(record)})


def kept_record(out: Path, *, fingerprint: dict[str, Any]) -> RunRecord | None:
    """The record of a run that came to its end, if what would be trained now is that run and its files are unchanged."""
    if not (out / NAME).exists():
        return None
    try:
        kept = read_json(out / NAME)
        if (kept["fingerprint_sha256"], kept["files"]) != (sha256_json(fingerprint), _digests(out)):
            return None
        return as_record(kept["record"], RunRecord, out / NAME)
    except (UserError, OSError, KeyError, TypeError):
        return None  # damaged: the run is trained again


def _digests(out: Path) -> dict[str, str]:
    """SHA-256 of the final files by their path in the run's folder; a diverged run has no adapter."""
    files = [out / "losses.csv", *sorted((out / "adapter").glob("*"))]
    return {str(file.relative_to(out)): sha256_file(file) for file in files}
