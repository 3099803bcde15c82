"""Rows of a prompt and a reply, preference rows and plain text, as messages."""

import re
from typing import Any

from loragrid.data.formats.reasons import EMPTY_PROMPT, EMPTY_REPLY, NO_CONVERSATION, NOT_TEXT, UnusableRow
from loragrid.data.formats.row_format import GIVEN, HISTORIES, MESSAGES, PROMPTS, TEXTS, Fields, RowFormat, take_first
from loragrid.data.formats.texts import as_list, checked_text, is_empty
from loragrid.data.formats.turns import CALLS, THOUGHTS, Draft, add_turn, read_turns, turn_shape

# Notes on a row, codes that the card counts.
PREFERENCE = "preference_rows"
PLAIN_TEXT = "plain_text"
PROMPT_REPLIES = "prompt_replies_untrained"
# Fields beside a prompt that belong to it; the study's own prompt column is taken as it is.
EXTRA_INPUTS = {"instruction": ("input", "context"), "prompt": ("input",), "question": ("input",)}
TRANSCRIPT = re.compile(r"\n\n(Human|Assistant):")


def read_exchange(fields: Fields, row_format: RowFormat, draft: Draft) -> None:
    """Add the history, the prompt and the reply of a row to the draft."""
    prompt_key, reply_key = row_format.keys
    _read_history(fields, draft)
    _read_prompt(fields, prompt_key, draft)
    _read_reply(fields.pop(reply_key, None), fields, draft, reply_key)


def _read_history(fields: Fields, draft: Draft) -> None:
    given = take_first(fields, HISTORIES)
    if given is None:
        return
    history = as_list(given)
    shape = turn_shape(history, draft.roles)
    if shape is None:
        raise UnusableRow(NOT_TEXT)
    read_turns(history, shape, draft, "history")


def _read_prompt(fields: Fields, key: str, draft: Draft) -> None:
    value = fields.pop(key, None)
    shape = turn_shape(value, draft.roles)
    if shape is not None:
        before = len(draft.messages)
        read_turns(value, shape, draft, key)
        _leave_untrained(draft, before)
        return
    extra = next((name for name in EXTRA_INPUTS.get(key, ()) if not is_empty(fields.get(name))), None)
    if extra is not None:
        # ASSUME (alpaca): instruction and input form one user turn with an empty line between them. Alpaca's own
        # frame ("Below is an instruction …") is left out, since the chat template frames the turn.
        texts = [checked_text(text, EMPTY_PROMPT, optional=True) for text in (value, fields.pop(extra))]
        value = "\n\n".join(text for text in texts if text.strip())
    draft.text_place = key
    add_turn("user", value, {}, draft)


def _leave_untrained(draft: Draft, start: int) -> None:
    """Mark replies within a prompt: as in TRL, only what completes a prompt is trained on."""
    replies = {i for i in range(start, len(draft.messages)) if draft.messages[i]["role"] == "assistant"}
    if replies:
        draft.untrained |= replies
        draft.notes.add(PROMPT_REPLIES)


def _read_reply(value: Any, fields: Fields, draft: Draft, place: str) -> None:
    """Add a reply: text with thoughts and calls in the row's other fields, one turn, or a list of turns."""
    turns = [value] if isinstance(value, dict) else value
    shape = turn_shape(turns, draft.roles)
    if shape is not None:
        read_turns(turns, shape, draft, place)
        return
    # Several texts are several answers: joined, they would be trained as one.
    if isinstance(value, list) and len(value) > 1 and all(isinstance(text, str) for text in value):
        raise UnusableRow(NOT_TEXT)
    draft.text_place = place
    rest = {key: fields.pop(key) for key in (*THOUGHTS, *CALLS) if key in fields}
    add_turn("assistant", value, rest, draft)
    fields |= rest


def read_preference(fields: Fields, draft: Draft) -> None:
    """Add the prompt and the chosen reply of a row; the rejected one stays among the fields not used."""
    # The chosen reply is trained on like any other; the comparison is not used, and the card says so.
    draft.notes.add(PREFERENCE)
    chosen = fields.pop("chosen", None)
    turns = [chosen] if isinstance(chosen, dict) else as_list(chosen)
    shape = turn_shape(turns, draft.roles)
    if shape is not None:
        whole = Draft(draft.roles)
        read_turns(turns, shape, whole, "chosen")
        if any(message["role"] == "user" for message in whole.messages):
            read_turns(turns, shape, draft, "chosen")
            _drop_repeated_prompt(fields, draft)
            return
        _read_context(fields, draft)
        read_turns(turns, shape, draft, "chosen")
        return
    if isinstance(chosen, str) and TRANSCRIPT.match(chosen):
        _read_transcript(chosen, draft)
        return
    _read_context(fields, draft)
    _read_reply(chosen, fields, draft, "chosen")


def _read_context(fields: Fields, draft: Draft) -> None:
    """Add what comes before a chosen reply: a prompt, or a list of turns without its reply."""
    _read_history(fields, draft)
    key = next((name for name in PROMPTS if not is_empty(fields.get(name))), None)
    if key is not None:
        _read_prompt(fields, key, draft)
        return
    place, turns, shape = take_turns(fields, draft)
    if shape is None:
        raise UnusableRow(EMPTY_PROMPT)
    before = len(draft.messages)
    read_turns(turns, shape, draft, place)
    _leave_untrained(draft, before)


def _drop_repeated_prompt(fields: Fields, draft: Draft) -> None:
    """Take out a prompt that the chosen conversation holds as well."""
    texts = {message["content"].strip() for message in draft.messages if message["role"] != "assistant"}
    prompt = fields.get("prompt")
    if isinstance(prompt, str) and prompt.strip() in texts:
        del fields["prompt"]


def _read_transcript(text: str, draft: Draft) -> None:
    """Add the turns of a text such as "\\n\\nHuman: …\\n\\nAssistant: …"."""
    _, *parts = TRANSCRIPT.split(text)
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        role = "user" if speaker == "Human" else "assistant"
        add_turn(role, said.strip(), {}, draft)


def read_text(fields: Fields, draft: Draft) -> None:
    """Add plain text as one reply without a prompt."""
    draft.notes.add(PLAIN_TEXT)
    text = checked_text(take_first(fields, TEXTS), EMPTY_REPLY)
    draft.messages.append({"role": "assistant", "content": text})


def read_listed_turns(fields: Fields, row_format: RowFormat, draft: Draft) -> None:
    """Add the turns of the row's list in the shape of its source."""
    place, turns, shape = take_turns(fields, draft, row_format.keys)
    if turns is None:
        raise UnusableRow(NO_CONVERSATION)
    if shape is not None and shape[0] != row_format.keys[0]:
        raise UnusableRow(NO_CONVERSATION)
    # Turns of no known shape are read in the source's too, which finds out what is wrong with them.
    read_turns(turns, row_format.keys, draft, place)


def take_turns(
    fields: Fields, draft: Draft, expected: tuple[str, ...] = ()
) -> tuple[str, list[Any] | None, tuple[str, ...] | None]:
    """Name, turns and shape of the first list of turns in the row, taken out of `fields`."""
    first = None
    for name in MESSAGES:
        turns = as_list(fields.get(name))
        if not turns:
            continue
        if expected[:1] == ("spoken",) and isinstance(turns[0], dict) and expected[1] in turns[0]:
            shape = expected  # nearly every row: the fast way
        else:
            shape = turn_shape(turns, draft.roles)
        if shape is not None:
            del fields[name]
            return name.removeprefix(GIVEN), turns, shape
        first = first or (name, turns, None)
    return first or ("", None, None)
