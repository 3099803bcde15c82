"""Held-out losses kept in files, so that none is measured twice: the base's for all runs and its score, a run's last
one for its score.

A file is used only for the same weights, rows, arithmetic, libraries and code: its key holds them. It has a digest of
its content, because a base's file is in no folder with a seal.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from loragrid.errors import UserError
from loragrid.models.passes.row_losses import RowLoss
from loragrid.records.seal import check_sealed
from loragrid.runtime.atomic_files import read_json, sha256_json, write_json
from loragrid.runtime.code_digest import code_digest
from loragrid.runtime.file_digests import session_sha256
from loragrid.runtime.provenance import versions

OF_RUN = "heldout_losses.json"  # in the folder of a run, beside its weights
OF_BASES = "base_losses"  # folder beside those of the stages
# Modules whose code decides the losses.
MEASURED_BY = ("loragrid/models/passes/row_losses", "loragrid/models/attached_adapters")
POLL_SECONDS = 0.2
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


def arithmetic(*, precision: str, compute_dtype: str, device: str) -> str:
    """How a loss is computed, as part of a key: the base's precision, the arithmetic and the kind of device."""
    return f"{precision} base, {compute_dtype} on {device}"


def loss_key(*, base_sha256: str, weights_sha256: str | None, rows: Path, computed: str) -> str:
    """Key of a model's losses on the rows of a file; `weights_sha256` is None for the base alone."""
    installed = versions()
    return sha256_json(
        {
            "base": base_sha256,
            "weights": weights_sha256,
            "rows": session_sha256(rows),
            "computed": computed,
            "versions": {name: installed.get(name) for name in LIBRARIES},
            "code": [code_digest(module) for module in MEASURED_BY],
        }
    )


@dataclass(frozen=True)
class Measured:
    """The losses of held-out rows in their order, and the seconds that their measurement took."""

    losses: list[RowLoss]
    seconds: float


@dataclass(frozen=True)
class KeptLosses:
    """A file for the losses of the model and the rows that `key` stands for."""

    path: Path
    key: str

    def read(self, *, rows: int) -> Measured | None:
        """The losses of the rows, None if the file is missing, damaged, changed, or of another key."""
        try:
            check_sealed(self.path)
            kept = read_json(self.path)
            losses = [RowLoss(float(nats), int(tokens)) for nats, tokens in kept["losses"]]
            measured = Measured(losses, float(kept["seconds"]))
            same = kept["key"] == self.key and len(losses) == rows and _as_written(kept)
        except (UserError, OSError, KeyError, TypeError, ValueError, OverflowError):
            return None
        return measured if same else None

    @contextmanager
    def locked(self, *, give_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Wait until no other job measures these losses, which it may then have kept, or until `give_up()` is true."""
        with ExitStack() as opened:
            with suppress(OSError):  # where no file can be opened, all jobs measure
                self.path.parent.mkdir(exist_ok=True)
                lock = opened.enter_context(open(self.path.with_suffix(".lock"), "w"))
                # A kill of the other job ends its lock.
                while not _try_lock(lock) and not give_up():
                    time.sleep(POLL_SECONDS)
            yield

    def write(self, measured: Measured) -> None:
        """Keep the losses of the rows, if the folder can be written to."""
        losses = [list(loss) for loss in measured.losses]
        content = {"key": self.key, "seconds": round(measured.seconds, 3), "losses": losses}
        with suppress(OSError):  # without the file they are measured again
            self.path.parent.mkdir(exist_ok=True)
            write_json(self.path, content | {"sha256": sha256_json(content)})


def _try_lock(file: IO[str]) -> bool:
    """Lock the file; False if another job has it. On a file system without locks every job measures: True."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def changed_base_losses(results: Path) -> list[Path]:
    """The files of base losses in a study's results that are not as they were written."""
    found = []
    for path in sorted((results / OF_BASES).glob("*.json")):
        try:
            same = _as_written(read_json(path))
        except (UserError, KeyError, TypeError):
            same = False
        found += [] if same else [path]
    return found


def _as_written(kept: dict[str, Any]) -> bool:
    return kept["sha256"] == sha256_json({name: value for name, value in kept.items() if name != "sha256"})


def base_losses(out: Path, key: str) -> KeptLosses | None:
    """The file of a base's losses in the results that a job's folder is part of; None outside of results."""
    folder = out.resolve()
    # results/{study}/train/{run} and results/{study}/score/{subject}
    if folder.parent.name not in ("train", "score"):
        return None
    return KeptLosses(folder.parents[1] / OF_BASES / f"{key[:16]}.json", key)
