"""A conversation in the roles of chat templates, whatever form its source has."""

import json
from dataclasses import dataclass
from typing import Any

# `role`: system, user, assistant or tool; `content`: text, "" only in a reply that calls tools and in a tool's empty
# result; optional in replies: `tool_calls`, a list of {"type": "function", "function": {"name", "arguments"}} with the
# arguments as an object, and `reasoning_content`, the thoughts before the reply, whatever the source calls them.
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation that ends with an assistant turn.

    `cut_after_last_reply`: turns after the last reply were removed; `tools`: JSON schemas of the
    functions that the model may call; `untrained`: positions of replies that the data mark not to
    train on; `unused`: names of the row's fields that nothing reads, such as "id" or
    "messages[].refusal"; `notes`: codes of what was assumed of this row, which the card counts.
    """

    messages: list[Message]
    tools: list[dict[str, Any]] | None
    cut_after_last_reply: bool
    untrained: frozenset[int] = frozenset()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def tool_calls_text(message: Message) -> str:
    """The tool calls of a reply as JSON, one per line: their form where a template has none."""
    functions = [call["function"] for call in message.get("tool_calls", ())]
    return "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)


def reply_text(message: Message) -> str:
    """What a message says and calls, without its thoughts."""
    if "tool_calls" not in message:
        return message["content"]
    return "\n".join(text for text in (message["content"], tool_calls_text(message)) if text)


def whole_text(message: Message) -> str:
    """All text of a message: its thoughts, what it says, and what it calls."""
    text = reply_text(message)
    if "reasoning_content" in message:
        text = message["reasoning_content"] + "\n" + text
    return text
