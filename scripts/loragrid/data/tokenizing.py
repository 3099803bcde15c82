"""Conversations as a model reads them: its chat template, and which tokens carry loss.

A conversation is rendered once and tokenised once. A reply's place in the text is found by rendering the turns before
it with and without it, so that any template works that does not rewrite earlier turns when later ones come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loragrid.data.conversation_formats import Conversation
from loragrid.models.chat_template import ChatTemplate, adapt_roles, render_chats

NO_LOSS = -100  # the label that torch's cross entropy leaves out


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text, and the character ranges of its replies, each with its end-of-turn token."""

    text: str
    replies: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Encoded:
    """`input_ids` and `labels` (int32, equal length, cut to the limit); `full_length` before the cut; `straddles`: a
    token lies across the border of a reply."""

    input_ids: np.ndarray
    labels: np.ndarray
    full_length: int
    straddles: bool


def render(template: ChatTemplate, conversations: Sequence[Conversation]) -> list[Rendered | None]:
    """Each conversation as text with its replies located; None where the template refuses it or the replies cannot be
    located. Conversations end with an assistant turn (`chat_forms` sees to it)."""
    results: list[Rendered | None] = [None] * len(conversations)
    plain = []
    for position, conversation in enumerate(conversations):
        if template.needs_generation_marks or (template.supports_tools and conversation.tools):
            results[position] = _render_group(template, [conversation], conversation.tools)[0]
        else:
            plain.append(position)
    for position, result in zip(plain, _render_group(template, [conversations[i] for i in plain], None), strict=True):
        results[position] = result
    return results


def _render_group(
    template: ChatTemplate, conversations: list[Conversation], tools: list | None
) -> list[Rendered | None]:
    chats = [adapt_roles(template, conversation.messages) for conversation in conversations]
    tools = tools if template.supports_tools else None
    if template.needs_generation_marks:
        return [_render_by_marks(template, chat, tools) for chat in chats]
    jobs = [(c, i) for c, chat in enumerate(chats) for i, message in enumerate(chat) if message["role"] == "assistant"]
    before = render_chats(template, [chats[c][:i] for c, i in jobs], add_prompt=True, tools=tools)
    through = render_chats(template, [chats[c][: i + 1] for c, i in jobs], add_prompt=False, tools=tools)
    turns: list[list[tuple[str | None, str | None, str]]] = [[] for _ in chats]
    for (c, i), prompt, text in zip(jobs, before, through, strict=True):
        turns[c].append((prompt, text, chats[c][i]["content"]))
    located = [_locate(found) for found in turns]
    if template.has_generation_marks:
        pairs = zip(located, chats, strict=True)
        located = [found or _render_by_marks(template, chat, tools) for found, chat in pairs]
    return located


def _locate(turns: list[tuple[str | None, str | None, str]]) -> Rendered | None:
    """From each reply's prompt, text through it, and content; the last text is the whole conversation."""
    whole = turns[-1][1]
    replies = []
    for prompt, text, content in turns:
        if whole is None or prompt is None or text is None or not text.startswith(prompt) or not whole.startswith(text):
            return None
        replies.append((len(prompt), len(prompt) + _reply_length(text[len(prompt) :], content.strip())))
    return Rendered(whole, replies)


def _reply_length(turn: str, content: str) -> int:
    """Length of a reply with its end-of-turn token, without the line break that templates put behind that token."""
    at = turn.find(content)
    tail = turn[at + len(content) :] if at >= 0 else turn
    return len(turn.rstrip()) if tail.strip() else len(turn)


def _render_by_marks(template: ChatTemplate, chat: list[dict[str, str]], tools: list | None) -> Rendered | None:
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, marks = render_jinja_template(
            conversations=[chat],
            tools=tools,
            chat_template=template.text,
            return_assistant_tokens_mask=True,
            **template.tokenizer.special_tokens_map,
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError):
        return None
    return Rendered(texts[0], marks[0]) if marks[0] else None


def encode(
    template: ChatTemplate, rendered: Sequence[Rendered], *, max_length_tokens: int, loss_on: str
) -> list[Encoded]:
    """Tokenise; labels are the token where loss is wanted, else -100. `loss_on`: assistant (the replies with their
    end-of-turn tokens) or all (every token but the opening one).

    The template writes the special tokens, so the tokenizer adds none: no second opening token. A token across a
    reply's border counts as part of the reply. Longer conversations lose their end.
    """
    if not rendered:
        return []
    tokenizer = template.tokenizer
    batch = tokenizer(
        [item.text for item in rendered], add_special_tokens=False, return_attention_mask=False, verbose=False
    )
    encoded = []
    for item, ids, encoding in zip(rendered, batch["input_ids"], batch.encodings, strict=True):
        full = np.array(ids, dtype=np.int32)
        labels, straddles = full.copy(), False
        if loss_on == "all":
            if len(full) and full[0] == tokenizer.bos_token_id:
                labels[0] = NO_LOSS
        else:
            labels[:] = NO_LOSS
            for start, end in item.replies:
                first, last, across = _token_range(encoding, start, end, len(item.text))
                labels[first:last] = full[first:last]
                straddles |= across
        encoded.append(Encoded(full[:max_length_tokens], labels[:max_length_tokens], len(full), straddles))
    return encoded


def _token_range(encoding: Any, start: int, end: int, length: int) -> tuple[int, int, bool]:
    """First token and one past the last that touch characters start … end-1, and whether one reaches over a border."""
    first = _token_at(encoding, start, length)
    last = _token_at(encoding, end, length)
    across = first < len(encoding) and encoding.token_to_chars(first)[0] < start
    if last < len(encoding) and encoding.token_to_chars(last)[0] < end:
        return first, last + 1, True
    return first, last, across


def _token_at(encoding: Any, position: int, length: int) -> int:
    """The first token on the first character from `position` on that any token holds; the token count if none does."""
    for character in range(position, length):
        token = encoding.char_to_token(character)
        if token is not None:
            return token
    return len(encoding)


def loss_tokens(labels: np.ndarray) -> int:
    """Number of labels that carry loss: the first is never predicted, for lack of a token before it."""
    return int(np.count_nonzero(labels[1:] != NO_LOSS))
