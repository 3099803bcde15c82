"""Rows of a source as conversations, in every format that public data have.

sharegpt           {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}], "tools": "[…]"}
messages           {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
speaker/text turns and other keys of turns, under any name of the list
keyed              {"dialog": [{"user": "…"}, {"assistant": "…"}]}
pairs              {"conversation": [["…", "…"], ["…", "…"]]}
alpaca             {"instruction": "…", "input": "…", "output": "…"}
prompt/completion  and other names of a prompt and its reply: text, or lists of messages
preference         {"prompt": "…", "chosen": "…", "rejected": "…"}
text               {"text": "…"}

A reader takes what it uses out of a row's fields, so whatever is left over is known not to be used.
"""

import itertools
from typing import Any

from loragrid.data.formats.conversation import Conversation, Message
from loragrid.data.formats.detection import detect_format, row_format
from loragrid.data.formats.exchanges import (
    PLAIN_TEXT,
    read_exchange,
    read_listed_turns,
    read_preference,
    read_text,
)
from loragrid.data.formats.marks import MARKS, take_bad_label, take_mark, take_turn_marks
from loragrid.data.formats.reasons import (
    ALL_UNTRAINED,
    BAD_EXAMPLE,
    BAD_START,
    EMPTY_PROMPT,
    EMPTY_REPLY,
    MISSING_REPLY,
    NO_ASSISTANT,
    NO_CONVERSATION,
    NO_ROLE,
    NOT_AN_OBJECT,
    NOT_TEXT,
    TOO_DEEP,
    UnusableRow,
    other_form,
)
from loragrid.data.formats.row_format import GIVEN, SYSTEMS, TOOLS, Fields, RowFormat, take_first
from loragrid.data.formats.texts import is_empty, system_text
from loragrid.data.formats.tool_calls import read_tools
from loragrid.data.formats.turns import Draft

__all__ = ["UnusableRow", "detect_format", "to_conversation"]

SYSTEM_TURN_WINS = "system_turn_wins"  # the note on a system column beside a system turn
# Reasons that a row of another form may have in this one.
MAY_BE_ANOTHER_FORM = {NO_CONVERSATION, NO_ROLE, NOT_TEXT, EMPTY_PROMPT, EMPTY_REPLY}


def to_conversation(row: Any, row_format: RowFormat) -> Conversation:
    """One row of a source as a conversation. Raises `UnusableRow` if it cannot be trained on."""
    if not isinstance(row, dict):
        raise UnusableRow(NOT_AN_OBJECT)
    try:
        fields, others = row_format.fields(row)
    except RecursionError:
        raise UnusableRow(TOO_DEEP) from None
    draft = Draft(row_format.roles)
    draft.unused.update(others)
    try:
        _read(fields, row_format, draft)
    except UnusableRow as reason:
        raise _reason(row, row_format, reason) from None
    if not MARKS.isdisjoint(fields):
        draft.untrained |= take_turn_marks(fields, [message["role"] for message in draft.messages])
    _add_system(fields, draft)
    tools = read_tools(take_first(fields, TOOLS))
    if fields:
        _apply_row_marks(fields, row_format, draft)
        draft.unused.update(row_format.columns_left(row, fields))
    return _finish(draft, tools)


def _read(fields: Fields, row_format: RowFormat, draft: Draft) -> None:
    if row_format.kind == "turns":
        read_listed_turns(fields, row_format, draft)
    elif row_format.kind == "exchange":
        read_exchange(fields, row_format, draft)
    elif row_format.kind == "preference":
        read_preference(fields, draft)
    else:
        read_text(fields, draft)


def _reason(row: dict[str, Any], expected: RowFormat, reason: UnusableRow) -> UnusableRow:
    """The reason of a row that could not be read: another form, or the reason that was found."""
    if str(reason) in MAY_BE_ANOTHER_FORM:
        found = row_format(row, expected)
        if found is not None and found.name != expected.name:
            return UnusableRow(other_form(found.name))
    return reason


def _add_system(fields: Fields, draft: Draft) -> None:
    """Put a system prompt from a column of its own before the first turn."""
    if fields.keys().isdisjoint(SYSTEMS) or PLAIN_TEXT in draft.notes:
        return
    name = next((name for name in SYSTEMS if not is_empty(fields.get(name))), None)
    if name is None:
        return
    text, unread = system_text(fields[name])
    if not text.strip():
        return
    turns = [message["content"] for message in draft.messages if message["role"] == "system"]
    # A system turn of the conversation wins over a column, as in LLaMA-Factory; the card says so.
    if turns and text not in turns:
        draft.notes.add(SYSTEM_TURN_WINS)
        return
    del fields[name]
    draft.unused.update(name.removeprefix(GIVEN) + key for key in unread)
    if not turns:
        draft.messages.insert(0, {"role": "system", "content": text})
        draft.untrained = {position + 1 for position in draft.untrained}


def _apply_row_marks(fields: Fields, row_format: RowFormat, draft: Draft) -> None:
    if take_bad_label(fields, unpaired=row_format.keys == ("prompt", "completion")):
        raise UnusableRow(BAD_EXAMPLE)
    if take_mark(fields, draft.notes) is False:
        draft.untrained |= set(_replies(draft.messages))


def _finish(draft: Draft, tools: list[dict[str, Any]] | None) -> Conversation:
    replies = _replies(draft.messages)
    if not replies:
        raise UnusableRow(NO_ASSISTANT)
    # ASSUME: turns after the last reply have no answer to learn from; only they are removed.
    kept = draft.messages[: replies[-1] + 1]
    if PLAIN_TEXT not in draft.notes:
        _check_turn_order(kept)
    if draft.untrained.issuperset(replies):
        raise UnusableRow(ALL_UNTRAINED)
    return Conversation(
        messages=kept,
        tools=tools,
        cut_after_last_reply=len(kept) < len(draft.messages),
        untrained=frozenset(draft.untrained),
        unused=tuple(sorted(draft.unused)),
        notes=tuple(sorted(draft.notes)),
    )


def _replies(messages: list[Message]) -> list[int]:
    return [position for position, message in enumerate(messages) if message["role"] == "assistant"]


def _check_turn_order(messages: list[Message]) -> None:
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if roles[0] != "user":
        raise UnusableRow(BAD_START)
    # Two user turns in a row mean that the source lost a reply; two replies in a row are legitimate
    # (a tool call and the sentence after it).
    if ("user", "user") in itertools.pairwise(roles):
        raise UnusableRow(MISSING_REPLY)
