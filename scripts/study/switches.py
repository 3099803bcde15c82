"""Switches of the command line, `--config partial=true`: Snakemake passes `true` on as text and `True` as a value."""

import difflib
from typing import Any

from study.errors import UserError

KNOWN = ("study", "session_minutes", "partial", "warm")


def check_names(config: dict[str, Any]) -> None:
    """Refuse what `--config` does not know: a misspelt `partail=true` would be passed over in silence."""
    for name in config:
        if name not in KNOWN:
            close = difflib.get_close_matches(str(name), KNOWN, n=1)
            mend = f"did you mean {close[0]}?" if close else f"known are {', '.join(KNOWN)}"
            raise UserError(f"--config {name}={config[name]}: is unknown: {mend}")


def switch(config: dict[str, Any], name: str, *, default: bool) -> bool:
    """A switch as it was given, else `default`. Anything but true and false is a `UserError`."""
    value = config.get(name, default)
    known = {"true": True, "false": False}
    if str(value).lower() not in known:
        raise UserError(f"--config {name}={value}: is a switch: write {name}=true or {name}=false")
    return known[str(value).lower()]
