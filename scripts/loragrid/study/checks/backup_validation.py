"""Checks of the place for copies, as a study file or the command line names it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loragrid.errors import UserError
from loragrid.study.schema import study_error

FORMS = re.compile(r"hub:[\w.-]+/[\w.-]+|folder:.+|[a-z][a-z0-9+.-]*://[^\s]+")
# Also the names of Azure's and Amazon's: sig, aws_secret_access_key, X-Amz-Signature.
PASSWORD = re.compile(
    r"://[^/]*:[^/]*@"  # name:password
    r"|^(https?|webdavs?|davs?)://[^/]*@"  # a name alone is the token of many servers
    # A token as the name elsewhere; Azure writes a container before the account.
    r"|^(?!abfs|wasb|az|adl)[^:]*://(?=[^/]*\d)(?=[^/]*[a-z])[\w.~%+-]{20,}@"
    r"|[?&#;][^=/]*(token|key|secret|passw|sig|credential)[^=/]*=",
    re.IGNORECASE,
)


def check_backup(settings: Mapping[str, Any], path: Path) -> None:
    """Raise `UserError` for a complete study file's `backup` that names no place, or that has a password in it."""
    place = settings["backup"]
    if place is not None and (found := _problem(place)):
        raise study_error(path, "backup", found[0], fix=found[1])


def check_backup_option(place: str) -> None:
    """The same for `--config backup=PLACE`."""
    if found := _problem(place):
        raise UserError(f"--config backup: {found[0]}. Fix: {found[1]}.")


def _problem(place: str) -> tuple[str, str] | None:
    if PASSWORD.search(place):
        fix = "leave them out, and set the environment variables that the file system's own library reads"
        return f"credentials in the address ({place.partition('://')[0]}://…)", fix
    if not FORMS.fullmatch(place):
        fix = "use hub:owner/name, folder:PATH, or an address such as s3://bucket/path"
        shown = f"{place.partition('://')[0]}://…" if "@" in place else place[:100]
        return f"no place for copies ({shown})", fix
    return None
