"""Formats of conversation rows, and the reasons that make a row unusable.

sharegpt   {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}], "tools": "[…]"}
messages   {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
alpaca     {"instruction": "…", "input": "…", "output": "…"}
"""

import itertools
import json
from collections import Counter
from typing import Any

from loragrid.data.formats.conversation import Conversation
from loragrid.errors import UserError

ROLES = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    # ASSUME (tools): the model writes its tool calls, so a call is trained on like any other reply.
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
}
TURN_LIST_KEYS = ("conversations", "messages")
TURN_KEYS = {"sharegpt": ("from", "value"), "messages": ("role", "content")}
SHOWN_KEYS = 12

# The reasons are keys of the data card.
NOT_AN_OBJECT = "row is not an object"
NO_CONVERSATION = "no conversation in the row"
NOT_TEXT = "not text"
UNKNOWN_ROLE = "unknown role"
EMPTY_REPLY = "empty reply"
MISSING_REPLY = "missing reply"
EMPTY_PROMPT = "empty prompt"
NO_ASSISTANT = "no assistant turn"
BAD_START = "does not start with a user turn"
BAD_TOOLS = "tools cannot be read"


class UnusableRow(Exception):
    """A row that cannot be trained on; the message is one of the reasons above."""


def detect_format(rows: list[Any], *, source_name: str) -> str:
    """The format of a source, detected from its first `rows`.

    Raises `UserError` if the rows are in no known format or in more than one.
    """
    objects = [row for row in rows if isinstance(row, dict)]
    formats = Counter(_row_format(row) for row in objects)
    del formats[None]
    if len(formats) == 1:
        return next(iter(formats))
    if not objects:
        raise UserError(
            f"data {source_name}: none of its first {len(rows)} rows is an object. Fix: give conversations."
        )
    keys = sorted({str(key) for row in objects for key in row})[:SHOWN_KEYS]
    seen = f"keys seen: {', '.join(keys) or 'none'}"
    if formats:
        found = " and ".join(sorted(formats))
        raise UserError(
            f"data {source_name}: the source mixes the formats {found} ({seen}). Fix: give each format its own file."
        )
    raise UserError(
        f"data {source_name}: the format is unknown ({seen}). "
        "Fix: give conversations with from/value, messages with role/content, or instruction/input/output."
    )


def _row_format(row: dict[str, Any]) -> str | None:
    # The keys of a turn decide, not the name of the list: both pairs occur under both names.
    for list_key in TURN_LIST_KEYS:
        turns = row.get(list_key)
        for turn in turns if isinstance(turns, list) else ():
            for name, (role_key, _) in TURN_KEYS.items():
                if isinstance(turn, dict) and role_key in turn:
                    return name
    return "alpaca" if "instruction" in row and "output" in row else None


def to_conversation(row: Any, row_format: str) -> Conversation:
    """One row of a source as a conversation. Raises `UnusableRow` if it cannot be trained on."""
    if not isinstance(row, dict):
        raise UnusableRow(NOT_AN_OBJECT)
    if row_format == "alpaca":
        messages = _alpaca_messages(row)
    else:
        messages = _turn_messages(row, *TURN_KEYS[row_format])
    replies = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not replies:
        raise UnusableRow(NO_ASSISTANT)
    # ASSUME: turns after the last reply have no answer to learn from; only they are removed.
    kept = messages[: replies[-1] + 1]
    _check_turn_order(kept)
    return Conversation(
        messages=kept,
        tools=_read_tools(row.get("tools")),
        cut_after_last_reply=len(kept) < len(messages),
    )


def _alpaca_messages(row: dict[str, Any]) -> list[dict[str, str]]:
    # ASSUME (alpaca): instruction and input form one user turn with an empty line between them. Alpaca's own
    # frame ("Below is an instruction …") is left out, since the chat template frames the turn.
    instruction = _checked_text(row.get("instruction"), EMPTY_PROMPT, optional=True)
    extra_input = _checked_text(row.get("input"), EMPTY_PROMPT, optional=True)
    messages = [_message("system", row["system"])] if row.get("system") else []
    for exchange in row.get("history") or []:
        if not isinstance(exchange, list) or len(exchange) != 2:
            raise UnusableRow(NOT_TEXT)
        messages += [_message("user", exchange[0]), _message("assistant", exchange[1])]
    user = "\n\n".join(part for part in (instruction, extra_input) if part.strip())
    return [*messages, _message("user", user), _message("assistant", row.get("output"))]


def _turn_messages(row: dict[str, Any], role_key: str, text_key: str) -> list[dict[str, str]]:
    turn_lists = [row[key] for key in TURN_LIST_KEYS if isinstance(row.get(key), list)]
    if not turn_lists or not turn_lists[0]:
        raise UnusableRow(NO_CONVERSATION)
    messages = []
    for turn in turn_lists[0]:
        if not isinstance(turn, dict):
            raise UnusableRow(NOT_TEXT)
        source_role = turn.get(role_key)
        if not isinstance(source_role, str) or source_role.strip().lower() not in ROLES:
            raise UnusableRow(UNKNOWN_ROLE)
        role = ROLES[source_role.strip().lower()]
        content = turn.get(text_key)
        if role == "assistant" and not content and turn.get("tool_calls"):
            content = _tool_calls_text(turn["tool_calls"])
        if role == "system" and (content is None or content == ""):
            continue  # many data sets give every row a system turn, empty or not
        messages.append(_message(role, content))
    return messages


def _message(role: str, content: Any) -> dict[str, str]:
    if isinstance(content, list):
        content = _join_text_parts(content)
    reason_if_empty = EMPTY_REPLY if role == "assistant" else EMPTY_PROMPT
    # A tool may return nothing, and the model's next reply still follows from the call.
    text = _checked_text(content, reason_if_empty, optional=role == "tool")
    return {"role": role, "content": text}


def _checked_text(value: Any, reason_if_empty: str, *, optional: bool = False) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        if optional:
            return value or ""
        raise UnusableRow(reason_if_empty)
    if not isinstance(value, str):
        raise UnusableRow(NOT_TEXT)
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate: valid in JSON, but no tokenizer can read it
        raise UnusableRow(NOT_TEXT) from None
    return value


def _join_text_parts(parts: list[Any]) -> str:
    """The text of [{"type": "text", "text": "…"}, …]; images and sound are unusable."""
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise UnusableRow(NOT_TEXT)
    return "".join(texts)


def _tool_calls_text(calls: Any) -> str:
    # ASSUME (tools): a reply that only calls tools is trained on as the JSON of its calls, one per line.
    if not isinstance(calls, list):
        raise UnusableRow(NOT_TEXT)
    functions = [call.get("function", call) if isinstance(call, dict) else call for call in calls]
    return "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)


def _check_turn_order(messages: list[dict[str, str]]) -> None:
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if roles[0] != "user":
        raise UnusableRow(BAD_START)
    # Two user turns in a row mean that the source lost a reply; two replies in a row are legitimate
    # (a tool call and the sentence after it).
    if ("user", "user") in itertools.pairwise(roles):
        raise UnusableRow(MISSING_REPLY)


def _read_tools(tools: Any) -> list[dict[str, Any]] | None:
    """The `tools` column, JSON text or a list, as schemas {"type": "function", "function": …}."""
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else None
        except (ValueError, RecursionError):
            raise UnusableRow(BAD_TOOLS) from None
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UnusableRow(BAD_TOOLS)
    # Finds the lone surrogates in a schema, which the template would write into the text.
    _checked_text(json.dumps(tools, ensure_ascii=False, default=str), BAD_TOOLS)
    wrapped = []
    for tool in tools:
        wrapped.append(tool if "function" in tool else {"type": "function", "function": tool})
    return wrapped
