"""What is asked for on the command line: switches of `--config`, and files of single runs, bases or data sets.

Snakemake passes `--config partial=true` on as text and `True` as a value."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from loragrid.errors import UserError

VERBS = {"data": "prepare", "train": "train", "score": "score"}
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


def check_targets(targets: Iterable[str], *, results: str, known: dict[str, Iterable[str]]) -> None:
    """Refuse a file of a run, base or data set that the study does not have. `targets`: the command line's words; `known`: folder
    of a stage in `results` → names."""
    for target in targets:
        found = re.match(rf"(?:\./)?{re.escape(results)}/([^/]+)/([^/]+)/", str(target))
        if found and found[1] in known and found[2] not in known[found[1]]:
            close = difflib.get_close_matches(found[2], known[found[1]], n=1, cutoff=0)
            mend = f": the nearest is {close[0]}" if close else ""
            raise UserError(f"{target}: the study has no {found[2]} to {VERBS[found[1]]}{mend}")
