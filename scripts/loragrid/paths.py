"""The folders of the checkout, found once."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


def user_cache() -> Path:
    """The user's folder for what can be made again: shapes of models, the speed of this CPU."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loragrid"
