"""What a new study is asked for: data, a base model, and what the user has decided already."""

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loragrid.data.formats.row_format import USES
from loragrid.errors import UserError
from loragrid.paths import ROOT
from loragrid.planning.gpu_cards import read_cards
from loragrid.study.schema import one_of

HUB_ID = re.compile(r"[^/ ]+/[^/ ]+")
STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,100}")
LONGEST_KEY = 40  # of the 60 characters that a key may have: keys are parts of folder names


@dataclass(frozen=True, kw_only=True)
class Request:
    """A new study, as its user asks for it.

    `data` and `model`: a path or a hub id. `learning_rates`: those to compare, empty for usual ones; `card`: a GPU of
    config/cards.yaml, None for this machine; `hours`: the most that the study may take, None for a usual limit;
    `columns`: use → column of the data; `split`: of a data set from the hub.
    """

    data: str
    model: str
    name: str
    learning_rates: tuple[float, ...] = ()
    card: str | None = None
    hours: float | None = None
    columns: dict[str, str] = field(default_factory=dict)
    split: str = "train"

    def __post_init__(self) -> None:
        if not STUDY_NAME.fullmatch(self.name):
            problem = f"not a file name of letters, digits, '.', '_' and '-' ({self.name!r})"
            raise UserError(f"NAME: {problem}. Fix: give one, such as NAME=mine.")

    @property
    def data_source(self) -> dict[str, Any]:
        """`source` of the data set in the study file. Raises `UserError` for what is neither a path nor a hub id."""
        source = _place(self.data, "DATA", "a file, a folder", {"revision": "main", "split": self.split})
        if "path" in source and self.split != Request.split:
            raise UserError(f"SPLIT: only a data set of the hub has splits ({self.split}). Fix: leave it out.")
        return source

    @property
    def model_entry(self) -> dict[str, Any]:
        """The entry of the model in the study file. Raises `UserError` for what is neither a path nor a hub id."""
        entry = _place(self.model, "MODEL", "a folder in Hugging Face format", {})
        if "path" in entry and not (ROOT / entry["path"] / "config.json").is_file():
            problem = f"not a model folder, without a config.json ({self.model})"
            raise UserError(
                f"MODEL: {problem}. Fix: give a folder in Hugging Face format, or a hub id such as owner/name."
            )
        return entry


def _place(text: str, name: str, kinds: str, of_hub: dict[str, Any]) -> dict[str, Any]:
    path = Path(text).expanduser()
    if path.exists():
        return {"path": study_path(path)}
    looks_like_path = path.suffix in (".csv", ".json", ".jsonl", ".parquet", ".txt") or text.startswith((".", "/", "~"))
    if HUB_ID.fullmatch(text) and not looks_like_path:
        return {"hub": text, **of_hub}
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, beside, n=1)
    fix = f"write {path.parent / close[0]}" if close else f"give {kinds}, or a hub id such as owner/name"
    raise UserError(f"{name}: nothing is there ({text}). Fix: {fix}.")


def study_path(path: Path) -> str:
    """A path as the study file names it: relative to the project if it is within, so that a clone can be moved."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def key_of(text: str) -> str:
    """A key of the study file for data or a model: the last part of its name, in letters, digits, "." and "-"."""
    name = Path(text.rstrip("/")).name.lower()
    name = re.sub(r"(\.(csv|tsv|jsonl?|ndjson|parquet|txt|gz|zst|bz2))+$", "", name)
    key = re.sub(r"[^a-z0-9.]+", "-", name).strip("-.")[:LONGEST_KEY].strip("-.")
    return key or "mine"


def card_key(name: str | None) -> str | None:
    """The card of config/cards.yaml of that name, in any case; an unknown one is a `UserError`."""
    if name is None:
        return None
    cards = {key.lower(): key for key in read_cards()}
    if name.lower() in cards:
        return cards[name.lower()]
    raise UserError(f"CARD: not in config/cards.yaml ({name!r}). Fix: {one_of(cards.values())}.")


def learning_rates(text: str | None) -> tuple[float, ...]:
    """The learning rates in a text such as "1e-4 2e-4", in ascending order. Raises `UserError` for other texts."""
    found = []
    for word in re.split(r"[ ,;]+", (text or "").strip(" []")):
        try:
            found.append(float(word) if word else None)
        except ValueError:
            raise UserError(
                f'LR: not a learning rate ({word!r}). Fix: write numbers, such as LR="1e-4 2e-4".'
            ) from None
    rates = sorted({rate for rate in found if rate is not None})
    wrong = [rate for rate in found if rate is not None and not 0 < rate <= 10]
    if wrong:
        raise UserError(f"LR: not between 0 and 10 ({wrong[0]:g}). Fix: write rates such as 1e-4.")
    return tuple(rates)


def study_columns(text: str | None) -> dict[str, str]:
    """Use → column in a text such as "prompt=frage reply=antwort". Raises `UserError` for other texts."""
    columns = {}
    for word in re.findall(r"(?:[^\s,\"']|\"[^\"]*\"|'[^']*')+", text or ""):
        use, equals, column = word.partition("=")
        if not equals or not column:
            fix = 'write uses and columns, such as COLUMNS="prompt=frage reply=antwort"'
            raise UserError(f"COLUMNS: not a use and its column ({word!r}). Fix: {fix}.")
        if use not in USES:
            raise UserError(f"COLUMNS: not a use ({use!r}). Fix: {one_of(USES)}.")
        columns[use] = column.strip("\"'")
    names = list(columns.values())
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"COLUMNS: a column with two uses ({twice[0]}). Fix: give each use a column of its own.")
    return columns
