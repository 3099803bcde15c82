"""Switches of the command line, `--config partial=true`: Snakemake passes `true` on as text and `True` as a value."""

from typing import Any

from study.errors import UserError


def switch(config: dict[str, Any], name: str, *, default: bool) -> bool:
    """A switch as it was given, else `default`. Anything but true and false is a `UserError`."""
    value = config.get(name, default)
    known = {"true": True, "false": False}
    if str(value).lower() not in known:
        raise UserError(f"--config {name}={value}: is a switch: write {name}=true or {name}=false")
    return known[str(value).lower()]
