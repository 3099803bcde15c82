"""export.json: what an export was made from and how its forms compare with the run, and whether it can be kept."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.exporting.card import Card
from loragrid.exporting.exported_run import COMPARISON, ExportedRun
from loragrid.exporting.parity import Parity
from loragrid.records.seal import SEAL, SEALED, write_seal
from loragrid.runtime.atomic_files import json_text, read_json, sha256_file, sha256_json, write_text
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.provenance import device_info, git_state, versions

RECORD, SCHEMA = "export.json", 2


def export_key(run: ExportedRun, *, asked: Sequence[Any], page: Path | None) -> str:
    """Digest of everything that an export is made from; `asked`: which forms, and what can be measured here."""
    score = run.results / "score" / run.name / "score.json"
    files = [run.data / "heldout.parquet", run.results / COMPARISON, score, page, *sorted(run.trained.glob("*config*"))]
    if run.study.scoring.qualitative is not None:
        files.append(Path(run.study.scoring.qualitative))
    digests = [sha256_file(file) for file in files if file is not None and file.is_file()]
    content = [run.name, run.record.weights_sha256, run.record.base_sha256, digests, list(asked)]
    return sha256_json([*content, versions(), code_digest("export")])


def write_export_record(run: ExportedRun, folder: Path, card: Card, *, key: str) -> None:
    """Write export.json to the folder, with the digests of all its other files."""
    record = run.record
    files = {str(file.relative_to(folder)): sha256_file(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    content = {
        "schema": SCHEMA,
        "study": run.study.name,
        "run": run.name,
        "key": key,
        "model": run.cell.model,
        "weights_sha256": record.weights_sha256,
        "base_source": run.base_name,
        "base_commit": record.base_commit,
        "base_sha256": record.base_sha256,
        "merged": asdict(card.merged),
        "parities": [_comparison(one) for one in card.parities],
        "rejected": [_comparison(one) for one in card.rejected],
        "notes": list(card.notes),
        "files": files,
        SEALED: True,
        "versions": versions(),
        "git": git_state(),
        # Without the machine's name: the record is pushed with the rest.
        "device": {name: value for name, value in device_info().items() if name != "host"},
        "code": code_digest("export"),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json_text(content)
    write_seal(folder, files, record=RECORD, text=text)
    write_text(folder / RECORD, text)


def _comparison(found: Parity) -> dict[str, Any]:
    return asdict(found) | {"difference": found.difference, "holds": found.holds}


def kept_parities(folder: Path, *, key: str) -> list[Parity] | None:
    """The comparisons of a whole, unchanged export with that key; None if there is none."""
    try:
        kept: dict[str, Any] = read_json(folder / RECORD)
        if kept["schema"] != SCHEMA or kept["key"] != key or not (folder / SEAL).is_file():
            return None
        if any(sha256_file(folder / name) != digest for name, digest in kept["files"].items()):
            return None
        names = Parity.__dataclass_fields__
        return [Parity(**{name: value for name, value in one.items() if name in names}) for one in kept["parities"]]
    except (UserError, OSError, KeyError, TypeError, AttributeError):
        # A damaged record proves nothing: the run is exported again.
        return None
