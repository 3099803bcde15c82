"""Windows of a long conversation, each of which begins at a user turn."""

from collections.abc import Callable
from dataclasses import replace

from loragrid.data.formats.conversation import Conversation


def split_to_fit(conversation: Conversation, fits: Callable[[Conversation], bool]) -> list[Conversation]:
    """The conversation as windows with as many exchanges as `fits` allows; a single one may still not fit.

    Each begins with the conversation's system prompt and a user turn and ends with a reply; every
    message after the system prompt is in exactly one of them.
    """
    starts = _starts(conversation)
    ends = [*starts[1:], len(conversation.messages)]
    windows, first = [], 0
    while first < len(starts):
        last = first
        while last + 1 < len(starts) and fits(_window(conversation, starts[first], ends[last + 1])):
            last += 1
        windows.append(_window(conversation, starts[first], ends[last]))
        first = last + 1
    return windows


def _starts(conversation: Conversation) -> list[int]:
    """Positions of the messages that may begin a window: user turns, with a system turn before them."""
    messages = conversation.messages
    starts = [_prompt_length(conversation)]
    for position, message in enumerate(messages):
        if message["role"] != "user" or position <= starts[0]:
            continue
        start = position
        while messages[start - 1]["role"] == "system":
            start -= 1
        # A window ends with a reply, so one does not begin behind a tool's result.
        if start > starts[0] and messages[start - 1]["role"] == "assistant":
            starts.append(start)
    return starts


def _prompt_length(conversation: Conversation) -> int:
    """Number of system turns at the beginning."""
    roles = [message["role"] for message in conversation.messages]
    return next(position for position, role in enumerate(roles) if role != "system")


def _window(conversation: Conversation, start: int, end: int) -> Conversation:
    prompt = _prompt_length(conversation)
    shift = start - prompt
    return replace(
        conversation,
        messages=conversation.messages[:prompt] + conversation.messages[start:end],
        untrained=frozenset(position - shift for position in conversation.untrained if start <= position < end),
    )
