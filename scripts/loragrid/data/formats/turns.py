"""Lists of turns in any shape as messages, with the marks and fields of each turn."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loragrid.data.formats.conversation import Message
from loragrid.data.formats.marks import take_mark
from loragrid.data.formats.reasons import EMPTY_PROMPT, EMPTY_REPLY, NO_ROLE, NOT_TEXT, UnusableRow, unknown_role
from loragrid.data.formats.roles import CALL_ROLES, normal_name, role_of, settle_either
from loragrid.data.formats.texts import check_encodable, checked_text, is_empty, join_parts
from loragrid.data.formats.tool_calls import calls_in_text, read_calls
from loragrid.data.formats.tool_parts import result_content, take_names, take_results, take_uses

ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
TEXT_KEYS = ("content", "value", "text", "message", "utterance")
USUAL_TEXT_KEY = {"role": "content", "from": "value"}
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
CALLS = ("tool_calls", "function_call")
# The order within a turn that holds what several speakers say, whose keys a columnar file may sort.
SPEAKING_ORDER = ("system", "user", "assistant", "tool")
MARKED_PROMPT = "marked_prompt"  # the note on a mark to train on a turn that is no reply

Shape = tuple[str, ...]  # the shape of turns, and of turns with a speaker the keys of speaker and text


@dataclass(slots=True)
class Draft:
    """A conversation that is being read: its messages, and what its row leaves to say about them.

    `place` and `text_place`: where the turn that is being read has its fields and its text, such as
    "messages[]." and "messages[].content".
    """

    roles: Mapping[str, str]
    messages: list[Message] = field(default_factory=list)
    untrained: set[int] = field(default_factory=set)
    unused: set[str] = field(default_factory=set)
    notes: set[str] = field(default_factory=set)
    place: str = ""
    text_place: str = ""

    def leave(self, fields: Mapping[str, Any]) -> None:
        """Count fields of the turn as not used, except those that hold nothing."""
        self.unused.update(self.place + name for name, value in fields.items() if not is_empty(value))


def turn_shape(turns: Any, roles: Mapping[str, str]) -> Shape | None:
    """The shape of a list of turns; None for any other list."""
    if not isinstance(turns, list):
        return None
    without_text = None
    for turn in turns:
        if isinstance(turn, dict):
            keys = [normal_name(str(key)) for key in turn]
            speaker = next((key for key in ROLE_KEYS if key in keys), None)
            text = next((key for key in TEXT_KEYS if key in keys), None)
            if speaker is None and any(key in roles for key in keys):
                return ("keyed",)
            if speaker is not None and text is not None:
                return ("spoken", speaker, text)
            if speaker is not None:
                without_text = without_text or ("spoken", speaker, USUAL_TEXT_KEY.get(speaker, "text"))
        elif isinstance(turn, list) and len(turn) == 2:
            named = all(isinstance(pair, list) and pair and normal_name(str(pair[0])) in roles for pair in turns)
            return ("named pairs",) if named else ("pairs",)
    return without_text


def read_turns(turns: list[Any], shape: Shape, draft: Draft, place: str) -> None:
    """Add turns of a shape to the draft; `place` is the name of their field.

    Raises `UnusableRow` if one of them cannot be read.
    """
    before = draft.place, draft.text_place
    draft.place, draft.text_place = f"{place}[].", f"{place}[]"
    if shape[0] == "spoken":
        draft.text_place += f".{shape[2]}"
        _read_spoken(turns, shape, draft)
    elif shape[0] == "keyed":
        _read_keyed(turns, draft)
    else:
        _read_pairs(turns, draft, named=shape[0] == "named pairs")
    draft.place, draft.text_place = before


def _read_spoken(turns: list[Any], shape: Shape, draft: Draft) -> None:
    _, role_key, text_key = shape
    for turn in turns:
        if not isinstance(turn, dict):
            raise UnusableRow(NOT_TEXT)
        plain = _plain_turn(turn, role_key, text_key, draft.roles)
        if plain is not None:
            draft.messages.append(plain)
            continue
        if role_key not in turn or text_key not in turn:
            turn = {normal_name(key): value for key, value in turn.items()}
        name = turn.get(role_key)
        role = role_of(name, draft.roles)
        if role == "either":
            names = [other.get(role_key) for other in turns if isinstance(other, dict)]
            draft.roles = settle_either(names, draft.roles)
            role = role_of(name, draft.roles)
        rest = {}
        if len(turn) > 2 or text_key not in turn:
            rest = {key: value for key, value in turn.items() if key not in (role_key, text_key)}
        content = turn.get(text_key)
        if role == "assistant" and normal_name(str(name)) in CALL_ROLES and "tool_calls" not in rest:
            calls = calls_in_text(content)
            if calls is not None:
                content, rest["tool_calls"] = None, calls
        add_turn(role, content, rest, draft)
        if rest:
            draft.leave(rest)


def _plain_turn(turn: dict[str, Any], role_key: str, text_key: str, roles: Mapping[str, str]) -> Message | None:
    """The message of a turn that is a speaker and a text and nothing else, as nearly all are: the fast way."""
    name, text = turn.get(role_key), turn.get(text_key)
    if len(turn) != 2 or type(text) is not str or type(name) is not str or name in CALL_ROLES:
        return None
    role = roles.get(name)
    if role not in ("user", "assistant") or not text.isascii() or not text or text.isspace():
        return None
    return {"role": role, "content": text}


def _read_keyed(turns: list[Any], draft: Draft) -> None:
    """Turns such as {"user": "…"} or {"human": "…", "assistant": "…"}."""
    if not all(isinstance(turn, dict) for turn in turns):
        raise UnusableRow(NOT_TEXT)
    roles = settle_either([key for turn in turns for key in turn], draft.roles)
    for turn in turns:
        said, rest = {}, {}
        for key, value in turn.items():
            role = roles.get(normal_name(key))
            # A second key of the same role is left over, and so is counted.
            if role is None or role in said:
                rest[key] = value
            else:
                said[role] = value
        if not said:
            raise UnusableRow(unknown_role(next(iter(turn))) if turn else NO_ROLE)
        for role in SPEAKING_ORDER:
            if role in said:
                add_turn(role, said[role], rest if role == "assistant" or "assistant" not in said else {}, draft)
        draft.leave(rest)


def _read_pairs(turns: list[Any], draft: Draft, *, named: bool) -> None:
    """Pairs [speaker, text], or pairs [prompt, reply] of which the last may lack its reply."""
    for number, pair in enumerate(turns, start=1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise UnusableRow(NOT_TEXT)
        if named:
            add_turn(role_of(pair[0], settle_either([p[0] for p in turns], draft.roles)), pair[1], {}, draft)
            continue
        add_turn("user", pair[0], {}, draft)
        if number < len(turns) or not is_empty(pair[1]):
            add_turn("assistant", pair[1], {}, draft)


def add_turn(role: str, content: Any, rest: dict[str, Any], draft: Draft) -> None:
    """Add one turn to the draft; what it reads of the turn's other fields is taken out of `rest`.

    Raises `UnusableRow` if the turn cannot be read.
    """
    if role == "assistant":
        _add_reply(content, rest, draft)
        return
    if rest and take_mark(rest, set()):
        draft.notes.add(MARKED_PROMPT)
    if role == "system" and is_empty(content):
        return  # many data sets give every row a system turn, empty or not
    if role == "user" and isinstance(content, list):
        content, results = take_results(content)
        _add_results(results, draft)
        if results and not content:
            return
    if role == "tool":
        content = result_content(content)
    if isinstance(content, list):
        content, _, unread = join_parts(content, thoughts=False)
        draft.unused.update(f"{draft.text_place}[].{key}" for key in unread)
    # A tool may return nothing, and the model's next reply still follows from the call.
    message = {"role": role, "content": checked_text(content, EMPTY_PROMPT, optional=role == "tool")}
    if role == "tool":
        message |= take_names(rest)
    draft.messages.append(message)


def _add_results(results: list[tuple[Any, dict[str, Any]]], draft: Draft) -> None:
    for content, fields in results:
        add_turn("tool", content, fields, draft)
        draft.unused.update(f"{draft.text_place}[].{key}" for key, value in fields.items() if not is_empty(value))


def _add_reply(content: Any, rest: dict[str, Any], draft: Draft) -> None:
    thoughts, calls = [], []
    if isinstance(content, list):
        content, uses = take_uses(content)
        if uses and is_empty(rest.get("tool_calls")):
            rest["tool_calls"] = uses
        elif uses:
            draft.unused.add(f"{draft.text_place}[].tool_use")
        content, thought, unread = join_parts(content, thoughts=True)
        thoughts.append(thought)
        draft.unused.update(f"{draft.text_place}[].{key}" for key in unread)
    if rest:
        thoughts.insert(0, _take_thoughts(rest, draft))
        calls = _take_calls(rest, draft)
        if take_mark(rest, draft.notes) is False:
            draft.untrained.add(len(draft.messages))
    text = checked_text(content, EMPTY_REPLY, optional=bool(calls))
    message: Message = {"role": "assistant", "content": text if text.strip() else ""}
    thought = "\n".join(text for text in thoughts if text.strip())
    if thought:
        check_encodable(thought)
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
    draft.messages.append(message)


def _take_thoughts(rest: dict[str, Any], draft: Draft) -> str:
    """The thoughts of a reply, taken from the first of their fields that holds text."""
    for key in THOUGHTS:
        value = rest.get(key)
        if isinstance(value, list):
            try:
                text, thought, unread = join_parts(value, thoughts=True)
            except UnusableRow:
                continue  # what is no text is left over, and so is counted
            value = text + thought
            draft.unused.update(f"{draft.place}{key}[].{name}" for name in unread)
        if isinstance(value, str) and value.strip():
            del rest[key]
            return value
    return ""


def _take_calls(rest: dict[str, Any], draft: Draft) -> list[dict[str, Any]]:
    for key in CALLS:
        if not is_empty(rest.get(key)):
            calls, unread = read_calls(rest.pop(key))
            draft.unused.update(f"{draft.place}{key}[].{name}" for name in unread)
            return calls
    return []
