"""A conversation in the roles of chat templates, whatever form its source has."""

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
