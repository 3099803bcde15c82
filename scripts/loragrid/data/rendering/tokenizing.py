"""Conversations as token ids and labels: rendered by the chat template, then tokenised.

Each conversation is rendered once and tokenised once. A reply's place in the text is found by
rendering the turns before it, with and without the reply. This works for any template that does not
rewrite earlier turns when later ones are added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loragrid.data.formats.conversation import Conversation
from loragrid.models.chat_template import Chat, ChatTemplate, adapt_roles, render_chats

NO_LOSS = -100  # the label that torch's cross entropy ignores


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A conversation as text, and the character range of each reply with its end-of-turn token."""

    text: str
    replies: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class EncodedChat:
    """A conversation as tokens: `input_ids` and `labels`, int32 of equal length, cut to the limit.

    `full_length`: tokens before the cut; `crosses_border`: a token crosses the border of a reply.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    full_length: int
    crosses_border: bool


@dataclass(frozen=True, slots=True)
class _Turn:
    """A reply with the text before it and through it, both None if the template refuses them."""

    prompt: str | None
    through: str | None
    content: str


def render_conversations(
    template: ChatTemplate,
    conversations: Sequence[Conversation],
) -> list[RenderedChat | None]:
    """Each conversation as text with its replies located.

    None for a conversation that the template refuses or whose replies cannot be located. Every
    conversation must end with an assistant turn, as `to_conversation` ensures.
    """
    results: list[RenderedChat | None] = [None] * len(conversations)
    others = []
    for position, conversation in enumerate(conversations):
        if template.needs_generation_marks or (template.supports_tools and conversation.tools):
            results[position] = _render_group(template, [conversation], conversation.tools)[0]
        else:
            others.append(position)
    # All others have no tools to show, so one call renders them: much faster than one call each.
    group = _render_group(template, [conversations[i] for i in others], None)
    for position, result in zip(others, group, strict=True):
        results[position] = result
    return results


def _render_group(
    template: ChatTemplate, conversations: list[Conversation], tools: list | None
) -> list[RenderedChat | None]:
    """Conversations that share their `tools`, rendered together."""
    chats = [adapt_roles(template, conversation.messages) for conversation in conversations]
    if not template.supports_tools:
        tools = None
    if template.needs_generation_marks:
        return [_render_by_marks(template, chat, tools) for chat in chats]
    located = [_locate_replies(turns) for turns in _render_turns(template, chats, tools)]
    if template.has_generation_marks:
        # If rendering prefixes failed, the template's own marks may still locate the replies.
        for position, chat in enumerate(chats):
            if located[position] is None:
                located[position] = _render_by_marks(template, chat, tools)
    return located


def _render_turns(
    template: ChatTemplate,
    chats: list[Chat],
    tools: list | None,
) -> list[list[_Turn]]:
    """The replies of each chat, in order."""
    places = []
    for number, chat in enumerate(chats):
        places += [(number, i) for i, message in enumerate(chat) if message["role"] == "assistant"]
    before = [chats[number][:i] for number, i in places]
    through = [chats[number][: i + 1] for number, i in places]
    prompts = render_chats(template, before, add_prompt=True, tools=tools)
    texts = render_chats(template, through, add_prompt=False, tools=tools)
    turns: list[list[_Turn]] = [[] for _ in chats]
    for (number, i), prompt, text in zip(places, prompts, texts, strict=True):
        turns[number].append(_Turn(prompt, text, chats[number][i]["content"]))
    return turns


def _locate_replies(turns: list[_Turn]) -> RenderedChat | None:
    """The whole conversation, which is the text through its last reply, and its replies' ranges."""
    whole = turns[-1].through
    replies = []
    for turn in turns:
        if whole is None or turn.prompt is None or turn.through is None:
            return None
        # Anything else than growing text means that the template rewrote an earlier turn.
        if not turn.through.startswith(turn.prompt) or not whole.startswith(turn.through):
            return None
        start = len(turn.prompt)
        length = _reply_length(turn.through[start:], turn.content.strip())
        replies.append((start, start + length))
    return RenderedChat(whole, replies)


def _reply_length(reply: str, content: str) -> int:
    """Length of a reply with its end-of-turn token, without the line break after that token."""
    at = reply.find(content)
    tail = reply[at + len(content) :] if at >= 0 else reply
    if tail.strip():
        return len(reply.rstrip())
    # No end-of-turn token: the line break itself ends the turn, and the model must learn it.
    return len(reply)


def _render_by_marks(template: ChatTemplate, chat: Chat, tools: list | None) -> RenderedChat | None:
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, marked_ranges = render_jinja_template(
            conversations=[chat],
            tools=tools,
            chat_template=template.text,
            return_assistant_tokens_mask=True,
            **template.tokenizer.special_tokens_map,
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError):
        return None
    return RenderedChat(texts[0], marked_ranges[0]) if marked_ranges[0] else None


def encode_chats(
    template: ChatTemplate, chats: Sequence[RenderedChat], *, max_length_tokens: int, loss_on: str
) -> list[EncodedChat]:
    """Tokenise; a label is the token where it carries loss, else -100.

    `loss_on`: "assistant" (the replies with their end-of-turn tokens) or "all" (every token but the
    opening one). A token that crosses a reply's border counts as part of the reply. Longer
    conversations lose their end.
    """
    if not chats:
        return []
    tokenizer = template.tokenizer
    # The template writes the special tokens; the tokenizer would add a second opening token.
    batch = tokenizer(
        [chat.text for chat in chats],
        add_special_tokens=False,
        return_attention_mask=False,
        verbose=False,
    )
    encoded = []
    for chat, ids, encoding in zip(chats, batch["input_ids"], batch.encodings, strict=True):
        input_ids = np.array(ids, dtype=np.int32)
        if loss_on == "all":
            labels, crosses = _labels_on_all(input_ids, tokenizer.bos_token_id), False
        else:
            labels, crosses = _labels_on_replies(input_ids, encoding, chat)
        encoded.append(
            EncodedChat(
                input_ids=input_ids[:max_length_tokens],
                labels=labels[:max_length_tokens],
                full_length=len(input_ids),
                crosses_border=crosses,
            )
        )
    return encoded


def _labels_on_all(input_ids: np.ndarray, opening_token: int | None) -> np.ndarray:
    labels = input_ids.copy()
    # Every text begins with it, so there is nothing to learn.
    if len(labels) and labels[0] == opening_token:
        labels[0] = NO_LOSS
    return labels


def _labels_on_replies(
    input_ids: np.ndarray,
    encoding: Any,
    chat: RenderedChat,
) -> tuple[np.ndarray, bool]:
    labels, crosses = np.full_like(input_ids, NO_LOSS), False
    for start, end in chat.replies:
        first, last, crosses_here = _token_range(encoding, start, end, len(chat.text))
        labels[first:last] = input_ids[first:last]
        crosses |= crosses_here
    return labels, crosses


def _token_range(encoding: Any, start: int, end: int, text_length: int) -> tuple[int, int, bool]:
    """First and one past the last token of characters start … end-1; whether one crosses a border."""
    first = _token_at(encoding, start, text_length)
    last = _token_at(encoding, end, text_length)
    crosses = first < len(encoding) and encoding.token_to_chars(first)[0] < start
    if last < len(encoding) and encoding.token_to_chars(last)[0] < end:
        return first, last + 1, True
    return first, last, crosses


def _token_at(encoding: Any, position: int, text_length: int) -> int:
    """The token of the first character from `position` on that has one, else the token count."""
    # Some tokenizers drop characters, such as the blank before a special token.
    for character in range(position, text_length):
        token = encoding.char_to_token(character)
        if token is not None:
            return token
    return len(encoding)


def count_loss_tokens(labels: np.ndarray) -> int:
    """Number of labels that carry loss; the first never does, for lack of a token before it."""
    return int(np.count_nonzero(labels[1:] != NO_LOSS))
