"""Conversations as text with the places of the replies that carry loss."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loragrid.data.formats.conversation import Conversation
from loragrid.data.rendering.locating import MARKS, TURNS, WHOLE, Located, Turn, locate, render_turns
from loragrid.data.rendering.rendered import (
    ALL_UNTRAINED,
    BY_MARKS,
    CONTROL_TOKENS,
    JOINED_WITH_MARKED,
    LAST_UNTRAINED,
    MADE_UP_CALLS,
    MOVED_TEXT,
    NOT_LOCATED,
    NOT_SHOWN,
    OPENED_THOUGHTS,
    PER_REPLY,
    REFUSED,
    THOUGHTS_LEFT_OUT,
    Rendered,
    RenderedChat,
)
from loragrid.models.chat_templates.adapting import AdaptedChat, adapt_messages
from loragrid.models.chat_templates.control_tokens import Masked
from loragrid.models.chat_templates.template import Chat, ChatTemplate

PLAIN_TEXT = "plain_text"  # the note of a row of text without turns
FACTS_OF_WAYS = {MARKS: BY_MARKS, WHOLE: MOVED_TEXT, TURNS: PER_REPLY}


@dataclass(frozen=True, slots=True)
class _Task:
    """A conversation on its way to text; `trained` tells of each reply whether it may carry loss.

    `joined`: whether a reply is joined with one that is marked not to train on.
    """

    adapted: AdaptedChat
    tools: list[dict[str, Any]] | None
    trained: list[bool]
    masked: Masked | None
    joined: bool


def render_conversations(
    template: ChatTemplate,
    conversations: Sequence[Conversation],
    *,
    loss_on: str = "assistant",
    first_characters: int | None = None,
) -> list[Rendered]:
    """Each conversation as the texts that it is trained as, or the reason why there is none.

    Every conversation must end with an assistant turn, as `data.formats` ensures. `loss_on`:
    "assistant", "last_reply" or "all". `first_characters`: of long conversations, only the replies that begin within
    so many characters need be located.
    """
    if loss_on == "last_reply" and first_characters is not None:
        first_characters = 0  # the last reply is always located
    results: list[Rendered | None] = [None] * len(conversations)
    groups: dict[str, list[tuple[int, _Task]]] = {}
    for position, conversation in enumerate(conversations):
        if PLAIN_TEXT in conversation.notes:
            results[position] = _plain_text(template, conversation)
            continue
        task = _task(template, conversation)
        results[position] = _untrained(task, loss_on)
        if results[position] is None:
            key = json.dumps(task.tools, default=str) if task.tools else ""
            groups.setdefault(key, []).append((position, task))
    # One call renders all that share their tools: much faster than one call each.
    for group in groups.values():
        tools = group[0][1].tools
        chats = [task.adapted.messages for _, task in group]
        all_turns = render_turns(template, chats, tools, first_characters=first_characters)
        for (position, task), turns in zip(group, all_turns, strict=True):
            results[position] = _rendered(template, task, turns, loss_on)
    return results


def _task(template: ChatTemplate, conversation: Conversation) -> _Task:
    messages = conversation.messages
    tools = conversation.tools if template.abilities.tools else None
    masked = None
    if _spells_out_tokens(template, messages, tools):
        masked = template.control.mask([messages, tools])
        messages, tools = masked.value
    adapted = adapt_messages(template, messages)
    trained, joined = [], False
    for message, origins in zip(adapted.messages, adapted.origins, strict=True):
        if message["role"] == "assistant":
            marked = conversation.untrained.intersection(origins)
            trained.append(not marked)
            joined |= 0 < len(marked) < len(origins)
    return _Task(adapted, tools, trained, masked, joined)


def _spells_out_tokens(template: ChatTemplate, messages: Chat, tools: list[dict[str, Any]] | None) -> bool:
    # Nearly all messages have a role and a content alone, and one search for all is faster.
    contents = "\0".join(message["content"] for message in messages)
    others = [message for message in messages if len(message) > 2]
    return template.control.spelled_out_in(contents) or template.control.spelled_out_in([others, tools])


def _untrained(task: _Task, loss_on: str) -> Rendered | None:
    if not any(task.trained):
        return Rendered((), ALL_UNTRAINED)
    if loss_on == "last_reply" and not task.trained[-1]:
        return Rendered((), LAST_UNTRAINED)
    return None


def _rendered(template: ChatTemplate, task: _Task, turns: list[Turn], loss_on: str) -> Rendered:
    whole = turns[-1].through
    if whole is None:
        return Rendered((), REFUSED)
    located = locate(template, task.adapted.messages, turns, task.tools)
    one_text = located is not None and located.how != TURNS
    if loss_on == "all" and not one_text and all(task.trained):
        # Every token carries loss wherever the replies are, and a text per reply would train the first turns often.
        located = Located([whole], [{}], "")
    elif located is None or (loss_on == "all" and not one_text):
        return Rendered((), NOT_LOCATED)
    chats = []
    for text, places in zip(located.texts, located.places, strict=True):
        chat = _chat(task, text, places, loss_on, located.known)
        if chat.replies or loss_on == "all":
            chats.append(chat)
    return Rendered(tuple(chats), facts=_facts(template, task, turns, located))


def _chat(task: _Task, text: str, places: dict[int, tuple[int, int]], loss_on: str, known: int | None) -> RenderedChat:
    last = len(task.trained) - 1
    if loss_on == "last_reply":
        known = None
    replies, untrained = [], []
    for number, place in places.items():
        if task.trained[number] and (loss_on != "last_reply" or number == last):
            replies.append(place)
        else:
            untrained.append(place)
    if task.masked is None:
        return RenderedChat(text, tuple(replies), tuple(untrained), known=known)
    return RenderedChat(task.masked.reveal(text), tuple(replies), tuple(untrained), task.masked, text, known)


def _facts(template: ChatTemplate, task: _Task, turns: list[Turn], located: Located) -> frozenset[str]:
    facts = set()
    if task.adapted.made_up_calls:
        facts.add(MADE_UP_CALLS)
    if task.adapted.thoughts_left_out:
        facts.add(THOUGHTS_LEFT_OUT)
    if task.masked is not None:
        facts.add(CONTROL_TOKENS)
    if task.joined:
        facts.add(JOINED_WITH_MARKED)
    if located.how in FACTS_OF_WAYS:
        facts.add(FACTS_OF_WAYS[located.how])
    opened = template.layout.opened
    if opened and any(turn.prompt and not turn.through.startswith(turn.prompt) for turn in turns):
        facts.add(OPENED_THOUGHTS)
    if not _shows_all(task, located):
        facts.add(NOT_SHOWN)
    return frozenset(facts)


def _shows_all(task: _Task, located: Located) -> bool:
    """Whether every message's text is in the rendered text, and each reply's where it is trained."""
    replies = itertools.count()
    for message in task.adapted.messages:
        text = located.texts[-1]
        if message["role"] == "assistant":
            number = next(replies)
            text = located.texts[number] if located.how == TURNS else text
        content = (message["content"] or "").strip()
        # Templates change blanks around thoughts, so a second look leaves blanks aside.
        if content not in text and "".join(content.split()) not in "".join(text.split()):
            return False
    return True


def _plain_text(template: ChatTemplate, conversation: Conversation) -> Rendered:
    """A row of plain text as it is, between the tokens that open and end a text; loss on all of it."""
    tokenizer, masked = template.tokenizer, None
    content = conversation.messages[-1]["content"]
    if template.control.spelled_out_in(content):
        masked = template.control.mask(content)
        content = masked.value
    opening = tokenizer.bos_token or ""
    if tokenizer("x").input_ids[:1] != [tokenizer.bos_token_id]:
        opening = ""  # the tokenizer puts none before a text
    text = opening + content + (tokenizer.eos_token or "")
    places = ((len(opening), len(text)),)
    if masked is None:
        return Rendered((RenderedChat(text, places),))
    return Rendered((RenderedChat(masked.reveal(text), places, (), masked, text),), facts=frozenset({CONTROL_TOKENS}))
