"""The options of `snakemake --config name=value`, checked."""

import difflib
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from loragrid.errors import UserError
from loragrid.exporting.gguf import TYPES as GGUF_TYPES
from loragrid.exporting.push import check_push
from loragrid.models.compute_dtype import DTYPES
from loragrid.runtime.session import session_seconds
from loragrid.study.checks.backup_validation import check_backup_option

SWITCHED = ("partial", "warm", "ollama", "accept", "public")
SWITCHES = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The workflow's options.

    `session_minutes`, `budget_hours` and `backup` are None where the command line gives none; `budget_hours` bounds
    what `next` proposes. `worker` is None for `auto`. `run`, `dtype`, `gguf`, `ollama`, `accept`, `push` and
    `public` say what `export` does.
    """

    study: str
    session_minutes: float | None = None
    partial: bool = False
    warm: bool = True
    worker: bool | None = None
    budget_hours: float | None = None
    backup: str | None = None
    run: str | None = None
    dtype: str | None = None
    gguf: str | None = None
    ollama: bool = False
    accept: bool = False
    push: str | None = None
    public: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """The options of Snakemake's `config`; an unknown name or a bad value is a `UserError`."""
        known = [field.name for field in fields(cls)]
        for name, value in config.items():
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=1)
                hint = f"Did you mean {close[0]}?" if close else f"Fix: use {', '.join(known)}."
                raise UserError(f"--config {name}={value}: unknown option. {hint}")
        session_seconds(config.get("session_minutes"), key="session_minutes")
        _check_hours(config.get("budget_hours"))
        if config.get("backup") is not None:
            check_backup_option(str(config["backup"]))
        switches = {name: _switch(name, config[name]) for name in SWITCHED if name in config}
        if "worker" in config:
            switches["worker"] = _switch("worker", config["worker"], other={"auto": None})
        if config.get("dtype") not in (None, *DTYPES):
            raise UserError(f"dtype: not a dtype of a merged model ({config['dtype']}). Fix: use {', '.join(DTYPES)}.")
        _check_gguf(config.get("gguf"))
        if config.get("push") is not None:
            check_push(str(config["push"]))
        # An id may look like a number.
        run = {"run": str(config["run"])} if config.get("run") is not None else {}
        return cls(**{**config, **run, **switches})

    @property
    def export_arguments(self) -> str:
        """What `export` is asked for, as words of its command line."""
        given = [] if self.run is None else ["--run", self.run]
        given += [] if self.dtype is None else ["--dtype", self.dtype]
        given += [] if self.gguf is None else ["--gguf", self.gguf]
        given += [] if self.push is None else ["--push", self.push]
        return shlex.join([*given, *(f"--{name}" for name in ("ollama", "accept", "public") if getattr(self, name))])


def _check_hours(hours: Any) -> None:
    number = isinstance(hours, int | float) and not isinstance(hours, bool)
    if hours is not None and not (number and math.isfinite(hours) and hours > 0):
        raise UserError(f"budget_hours: not a number of hours above 0 ({hours}). Fix: give one, such as 4.")


def _check_gguf(kind: Any) -> None:
    if kind not in (None, *GGUF_TYPES):
        raise UserError(f"gguf: not a type of llama.cpp's converter ({kind}). Fix: use {', '.join(GGUF_TYPES)}.")


def _switch(name: str, value: Any, other: Mapping[str, Any] | None = None) -> Any:
    """A switch's value, or one of the `other` ones. Snakemake passes `--config partial=true` on as text and `True` as
    a value."""
    values = SWITCHES | (other or {})
    if str(value).lower() not in values:
        first, *others = [f"{name}={word}" for word in values]
        raise UserError(f"--config {name}={value}: not a switch value. Fix: write {first} or {' or '.join(others)}.")
    return values[str(value).lower()]
