"""The forms in which people keep conversations, and what makes a row unusable.

sharegpt   {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}], "tools": "[…]"}
messages   {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
alpaca     {"instruction": "…", "input": "…", "output": "…"}
"""

import itertools
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from loragrid.errors import UserError

ROLES = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    # ASSUME: a call of a tool is something the model says: it is trained on like any other reply.
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
}
TURN_LISTS = ("conversations", "messages")
TURN_KEYS = {"sharegpt": ("from", "value"), "messages": ("role", "content")}

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


class BadRow(Exception):
    """A row that cannot be trained on; the message is one of the reasons above."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """`messages` are {"role": system|user|assistant|tool, "content": text} and end with an assistant turn;
    `cut`: turns after the last reply were left off; `tools` are JSON schemas of what the model may call."""

    messages: list[dict[str, str]]
    tools: list[dict[str, Any]] | None
    cut: bool


def find_form(rows: list[Any], *, name: str) -> str:
    """The form of a source from its first rows; errors: none that is known, or more than one."""
    objects = [row for row in rows if isinstance(row, dict)]
    forms = Counter(form for row in objects if (form := _form_of(row)))
    if len(forms) == 1:
        return next(iter(forms))
    keys = ", ".join(sorted({str(key) for row in objects for key in row})[:12]) or "none"
    if forms:
        found = " and ".join(sorted(forms))
        raise UserError(f"data {name} mixes the forms {found} (keys seen: {keys}): give one form a file")
    if not objects:
        raise UserError(f"data {name}: none of its first {len(rows)} rows is an object: give conversations")
    raise UserError(
        f"data {name} is in no known form (keys seen: {keys}): give conversations with from/value, "
        "messages with role/content, or instruction/input/output"
    )


def _form_of(row: dict[str, Any]) -> str | None:
    for key in TURN_LISTS:
        turns = row.get(key)
        for turn in turns if isinstance(turns, list) else ():
            for form, names in TURN_KEYS.items():
                if isinstance(turn, dict) and names[0] in turn:
                    return form
    return "alpaca" if "instruction" in row and "output" in row else None


def to_conversation(row: Any, form: str) -> Conversation:
    """One row of the source as a conversation; raises `BadRow` with the reason if it cannot be trained on."""
    if not isinstance(row, dict):
        raise BadRow(NOT_AN_OBJECT)
    messages = _alpaca_messages(row) if form == "alpaca" else _turn_messages(row, *TURN_KEYS[form])
    last_reply = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)
    if last_reply is None:
        raise BadRow(NO_ASSISTANT)
    # ASSUME: turns after the last reply have no answer to learn from: they are left off, the rest is kept.
    kept = messages[: last_reply + 1]
    _check_order(kept)
    return Conversation(kept, _read_tools(row.get("tools")), cut=len(kept) < len(messages))


def _alpaca_messages(row: dict[str, Any]) -> list[dict[str, str]]:
    # ASSUME: instruction and input become one user turn with an empty line between; no "Below is an instruction" frame,
    # since the model's chat template frames the turn.
    prompt = [_text(row.get(key), EMPTY_PROMPT, optional=True) for key in ("instruction", "input")]
    messages = [_message("system", row["system"])] if row.get("system") else []
    for pair in row.get("history") or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRow(NOT_TEXT)
        messages += [_message("user", pair[0]), _message("assistant", pair[1])]
    user = "\n\n".join(part for part in prompt if part.strip())
    return [*messages, _message("user", user), _message("assistant", row.get("output"))]


def _turn_messages(row: dict[str, Any], role_key: str, text_key: str) -> list[dict[str, str]]:
    turns = next((row[key] for key in TURN_LISTS if isinstance(row.get(key), list)), None)
    if not turns:
        raise BadRow(NO_CONVERSATION)
    messages = []
    for turn in turns:
        role = turn.get(role_key) if isinstance(turn, dict) else None
        if not isinstance(turn, dict):
            raise BadRow(NOT_TEXT)
        if not isinstance(role, str) or role.strip().lower() not in ROLES:
            raise BadRow(UNKNOWN_ROLE)
        role = ROLES[role.strip().lower()]
        content = turn.get(text_key)
        if role == "assistant" and not content and turn.get("tool_calls"):
            content = _call_text(turn["tool_calls"])
        if role == "system" and (content is None or content == ""):
            continue  # an empty system turn says nothing
        messages.append(_message(role, content))
    return messages


def _message(role: str, content: Any) -> dict[str, str]:
    if isinstance(content, list):
        content = _join_parts(content)
    text = _text(content, EMPTY_REPLY if role == "assistant" else EMPTY_PROMPT, optional=role == "tool")
    return {"role": role, "content": text}


def _text(value: Any, empty: str, *, optional: bool = False) -> str:
    """`value` if it is text that can be encoded; `empty` is the reason where there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        if optional:
            return value or ""
        raise BadRow(empty)
    if not isinstance(value, str):
        raise BadRow(NOT_TEXT)
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell and no tokenizer can read
        raise BadRow(NOT_TEXT) from None
    return value


def _join_parts(parts: list[Any]) -> str:
    """Content in the form [{"type": "text", "text": "…"}, …]; a picture or sound cannot be trained on here."""
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise BadRow(NOT_TEXT)
    return "".join(texts)


def _call_text(calls: Any) -> str:
    # ASSUME: a reply that only calls tools is trained on as the JSON of its calls, one a line.
    if not isinstance(calls, list):
        raise BadRow(NOT_TEXT)
    functions = [call.get("function", call) if isinstance(call, dict) else call for call in calls]
    return "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)


def _check_order(messages: list[dict[str, str]]) -> None:
    roles = [message["role"] for message in messages]
    spoken = [role for role in roles if role != "system"]
    if spoken[0] != "user":
        raise BadRow(BAD_START)
    if any(pair == ("user", "user") for pair in itertools.pairwise(spoken)):
        raise BadRow(MISSING_REPLY)


def _read_tools(tools: Any) -> list[dict[str, Any]] | None:
    """The `tools` column: JSON text or a list of schemas, each wrapped as {"type": "function", "function": …}."""
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else None
        except (ValueError, RecursionError):
            raise BadRow(BAD_TOOLS) from None
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadRow(BAD_TOOLS)
    _text(json.dumps(tools, ensure_ascii=False, default=str), BAD_TOOLS)
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
