"""The reasons that make a row unusable; they are keys of the data card."""

NOT_AN_OBJECT = "row is not an object"
NO_CONVERSATION = "no conversation in the row"
NOT_TEXT = "not text"
TOO_DEEP = "nested too deeply"
NO_ROLE = "turn without a role"
EMPTY_REPLY = "empty reply"
MISSING_REPLY = "missing reply"
EMPTY_PROMPT = "empty prompt"
NO_ASSISTANT = "no assistant turn"
BAD_START = "does not start with a user turn"
BAD_TOOLS = "tools cannot be read"
BAD_CALL = "tool call cannot be read"
ALL_UNTRAINED = "every reply is marked not to train on"
BAD_EXAMPLE = "labelled as a bad reply"
UNKNOWN_ROLE = "unknown role"  # followed by the name
OTHER_FORM = "row of another form: "  # followed by its name

NAME_CHARACTERS = 40  # of an unknown role in a reason


class UnusableRow(Exception):
    """A row that cannot be trained on; the message is its reason."""


def unknown_role(name: str) -> str:
    """The reason of a row with a speaker whose role is not known."""
    if len(name) > NAME_CHARACTERS:
        name = name[:NAME_CHARACTERS] + "…"
    return f'{UNKNOWN_ROLE} "{name}"'


def other_form(name: str) -> str:
    """The reason of a row in another form than its source's first rows."""
    return OTHER_FORM + name
