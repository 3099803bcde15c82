"""A conversation as the chat template renders it, with the places of its replies."""

from dataclasses import dataclass

from loragrid.models.chat_templates.control_tokens import Masked

# Facts about rendered rows, which the data card counts.
MADE_UP_CALLS = "made_up_calls"
THOUGHTS_LEFT_OUT = "thoughts_left_out"
NOT_SHOWN = "not_shown"
CONTROL_TOKENS = "control_tokens"
OPENED_THOUGHTS = "opened_thoughts"
MOVED_TEXT = "moved_text"
BY_MARKS = "by_marks"
PER_REPLY = "per_reply"
WINDOWS = "windows"
JOINED_WITH_MARKED = "joined_with_marked"
# Reasons for dropping a row that was read; keys of the data card.
REFUSED = "refused by the chat template"
NOT_LOCATED = "replies cannot be located in the rendered text"
ALL_UNTRAINED = "every reply is marked not to train on"
LAST_UNTRAINED = "the last reply is marked not to train on"
TOO_LONG = "longer than max_length_tokens"
NOTHING_LEFT = "nothing left after truncation"
FIXES = {
    REFUSED: "set another chat_template",
    NOT_LOCATED: "set another chat_template",
    ALL_UNTRAINED: "give rows with a reply to train on",
    LAST_UNTRAINED: "use loss_on: assistant",
    TOO_LONG: "raise max_length_tokens, or use long_rows: cut",
    NOTHING_LEFT: "raise max_length_tokens",
}

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A conversation as text with character ranges: of replies that carry loss, and of those that never do.

    `masked` and `masked_text`: the same text with masks for the control tokens that messages spell
    out, None if there are none. `known`: the characters up to which all replies are located, None for all.
    """

    text: str
    replies: tuple[Place, ...]
    untrained: tuple[Place, ...] = ()
    masked: Masked | None = None
    masked_text: str | None = None
    known: int | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """The texts that a conversation is trained as, more than one if replies are trained apart.

    `reason`: why there is none; `facts`: what the card counts.
    """

    chats: tuple[RenderedChat, ...]
    reason: str | None = None
    facts: frozenset[str] = frozenset()
