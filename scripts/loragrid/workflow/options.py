"""The options of `snakemake --config name=value`, checked."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from loragrid.errors import UserError
from loragrid.runtime.session import session_seconds
from loragrid.study.checks.backup_validation import check_backup_option

SWITCHES = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The workflow's options.

    `session_minutes`, `budget_hours` and `backup` are None where the command line gives none; `budget_hours` bounds
    what `next` proposes. `worker` is None for `auto`.
    """

    study: str
    session_minutes: float | None = None
    partial: bool = False
    warm: bool = True
    worker: bool | None = None
    budget_hours: float | None = None
    backup: str | None = None

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
        switches = {name: _switch(name, config[name]) for name in ("partial", "warm") if name in config}
        if "worker" in config:
            switches["worker"] = _switch("worker", config["worker"], other={"auto": None})
        return cls(**{**config, **switches})


def _check_hours(hours: Any) -> None:
    number = isinstance(hours, int | float) and not isinstance(hours, bool)
    if hours is not None and not (number and math.isfinite(hours) and hours > 0):
        raise UserError(f"budget_hours: not a number of hours above 0 ({hours}). Fix: give one, such as 4.")


def _switch(name: str, value: Any, other: Mapping[str, Any] | None = None) -> Any:
    """A switch's value, or one of the `other` ones. Snakemake passes `--config partial=true` on as text and `True` as
    a value."""
    values = SWITCHES | (other or {})
    if str(value).lower() not in values:
        first, *others = [f"{name}={word}" for word in values]
        raise UserError(f"--config {name}={value}: not a switch value. Fix: write {first} or {' or '.join(others)}.")
    return values[str(value).lower()]
