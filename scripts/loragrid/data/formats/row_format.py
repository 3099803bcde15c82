"""The format of a source's rows, and the fields of a row by the names that the formats know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loragrid.data.formats.marks import MARKS
from loragrid.data.formats.roles import known_roles
from loragrid.data.formats.texts import is_empty, without_nulls

# Fields by their use, the first that a row has is read. A name with a blank is a column that the study names.
GIVEN = "the study's "
USES = ("prompt", "reply", "system", "history", "tools", "text", "messages")
MESSAGES = (f"{GIVEN}messages", "conversations", "messages", "conversation", "dialog", "dialogue", "turns", "chat")
PROMPTS = (f"{GIVEN}prompt", *"instruction prompt question query problem inputs user human input context".split())
REPLIES = (f"{GIVEN}reply", *"output completion response solution answer reply targets assistant chosen".split())
SYSTEMS = (f"{GIVEN}system", *"system system_prompt system_message system_instruction sys_prompt".split())
HISTORIES = (f"{GIVEN}history", "history")
TOOLS = (f"{GIVEN}tools", "tools", "functions")
TEXTS = (f"{GIVEN}text", "text")

MOST_KNOWN = 1_000  # columns whose names are kept: a source may have other ones in every row

Fields = dict[str, Any]


def _joined(name: str) -> str:
    """A name without what parts its words: "system prompt" and "systemPrompt" are "system_prompt"."""
    return name.replace("_", "").replace("-", "").replace(" ", "")


# Only names of several words may be written in several ways.
JOINED_NAMES = {_joined(name): name for name in (*SYSTEMS, *MARKS) if "_" in name}


@dataclass(frozen=True)
class RowFormat:
    """How the rows of a source are read; `name` is for the data card.

    `kind`: "turns" (a list of turns), "exchange" (a prompt and a reply), "preference" or "text".
    `keys`: of turns their shape and the keys of speaker and text, of an exchange the fields of prompt
    and reply. `columns`: column → the use that the study gives it; `roles`: speaker → role.
    """

    name: str
    kind: str
    keys: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=lambda: known_roles({}))
    # Names of columns that were looked up already.
    known: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def fields(self, row: Mapping[str, Any]) -> tuple[Fields, list[str]]:
        """The row's values by known name, without nulls, and its columns whose name another one has."""
        found: Fields = {}
        others = []
        for column, value in row.items():
            if value is None:
                continue
            name = self.known.get(column) or self.field_name(column)
            if name in found:
                others.append(column)
            elif isinstance(value, dict | list):
                found[name] = without_nulls(value)
            else:
                found[name] = value
        return found, others

    def field_name(self, column: str) -> str:
        """The name by which the formats know a column, whatever its case."""
        name = str(column).strip().lower()
        if column in self.columns:
            name = GIVEN + self.columns[column]
        elif _joined(name) in JOINED_NAMES:
            name = JOINED_NAMES[_joined(name)]
        if len(self.known) < MOST_KNOWN:
            self.known[column] = name
        return name

    def columns_left(self, row: Mapping[str, Any], fields: Fields) -> list[str]:
        """The columns whose values are still in `fields`, those that hold nothing left out."""
        left = {name for name, value in fields.items() if not is_empty(value)}
        if not left:
            return []
        return [column for column in row if (self.known.get(column) or self.field_name(column)) in left]


def take_first(fields: Fields, names: tuple[str, ...]) -> Any:
    """The first value under these names that holds something, taken out of `fields`; None without one."""
    if fields.keys().isdisjoint(names):
        return None
    for name in names:
        if name in fields and not is_empty(fields[name]):
            return fields.pop(name)
    return None
