"""Conversations of a data set as the rows that are trained on, long ones cut, split or dropped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from loragrid.data.formats.conversation import Conversation
from loragrid.data.rendering.conversations import PLAIN_TEXT, render_conversations
from loragrid.data.rendering.rendered import NOTHING_LEFT, TOO_LONG, WINDOWS, RenderedChat
from loragrid.data.rendering.tokenizing import EncodedChat, count_loss_tokens, encode_chats
from loragrid.data.rendering.windows import split_to_fit
from loragrid.models.chat_templates.template import ChatTemplate

MOST_CHARACTERS = 20_000_000  # rendered at a time
# Replies of long conversations are first located in this much of the text; tokens have two to six characters.
FIRST_CHARACTERS_PER_TOKEN = 8


@dataclass(frozen=True, slots=True)
class EncodedConversation:
    """The rows that a conversation is trained as, with their texts; `reason` why there is none."""

    rows: tuple[tuple[RenderedChat, EncodedChat], ...]
    reason: str | None = None
    facts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Encoder:
    """Renders and tokenises for one model.

    `loss_on`: "assistant", "last_reply" or "all"; `long_rows`: "cut", "window" or "drop" what has
    more than `max_length_tokens`.
    """

    template: ChatTemplate
    max_length_tokens: int
    loss_on: str
    long_rows: str

    def encode(self, conversations: Sequence[Conversation]) -> list[EncodedConversation]:
        """Each conversation's rows; several at once are much faster than one by one."""
        return [encoded for part in _parts(conversations) for encoded in self._encode_part(part)]

    def _encode_part(self, conversations: Sequence[Conversation]) -> list[EncodedConversation]:
        found = self._encode_whole(conversations)
        if self.long_rows == "cut":
            return [_with_loss(encoded) for encoded in found]
        results = []
        for conversation, encoded in zip(conversations, found, strict=True):
            if not self._fits(encoded):
                encoded = self._shortened(conversation, encoded)
            results.append(_with_loss(encoded))
        return results

    def _encode_whole(
        self, conversations: Sequence[Conversation], *, every_reply: bool = False
    ) -> list[EncodedConversation]:
        first_characters = None if every_reply else FIRST_CHARACTERS_PER_TOKEN * self.max_length_tokens
        rendered = render_conversations(
            self.template, conversations, loss_on=self.loss_on, first_characters=first_characters
        )
        chats = [chat for each in rendered for chat in each.chats]
        encoded = iter(
            encode_chats(self.template, chats, max_length_tokens=self.max_length_tokens, loss_on=self.loss_on)
        )
        results = []
        for conversation, each in zip(conversations, rendered, strict=True):
            rows = tuple((chat, next(encoded)) for chat in each.chats)
            if any(row.unknown for _, row in rows):
                results += self._encode_whole([conversation], every_reply=True)
            else:
                results.append(EncodedConversation(rows, each.reason, each.facts))
        return results

    def _fits(self, encoded: EncodedConversation) -> bool:
        return all(row.full_length <= self.max_length_tokens for _, row in encoded.rows)

    def _shortened(self, conversation: Conversation, encoded: EncodedConversation) -> EncodedConversation:
        if self.long_rows == "drop":
            return EncodedConversation((), TOO_LONG)
        if PLAIN_TEXT in conversation.notes:
            return encoded  # has no turns to begin a window at
        if self.loss_on == "last_reply":
            # The last reply of the conversation, not of each window.
            replies = [at for at, message in enumerate(conversation.messages) if message["role"] == "assistant"]
            conversation = replace(conversation, untrained=frozenset(replies[:-1]))
        windows = split_to_fit(conversation, self._window_fits)
        found = self._encode_whole(windows)
        rows = tuple(row for window in found for row in window.rows)
        return EncodedConversation(rows, facts=frozenset().union(*(window.facts for window in found), {WINDOWS}))

    def _window_fits(self, window: Conversation) -> bool:
        # A window without a trained reply is written nowhere, but its length still counts.
        (encoded,) = self._encode_whole([replace(window, untrained=frozenset())])
        return self._fits(encoded)


def _parts(conversations: Sequence[Conversation]) -> Iterator[list[Conversation]]:
    """The conversations in lists whose rendered texts fit into memory, in order."""
    part: list[Conversation] = []
    characters = 0
    for conversation in conversations:
        # The text up to each reply is rendered twice, without the reply and with it.
        replies = sum(message["role"] == "assistant" for message in conversation.messages)
        size = 2 * replies * sum(len(message["content"] or "") for message in conversation.messages)
        if part and characters + size > MOST_CHARACTERS:
            yield part
            part, characters = [], 0
        part.append(conversation)
        characters += size
    if part:
        yield part


def _with_loss(encoded: EncodedConversation) -> EncodedConversation:
    """The conversation without rows that carry no loss, or the reason why none is left."""
    if encoded.reason is not None:
        return encoded
    rows = tuple((chat, row) for chat, row in encoded.rows if count_loss_tokens(row.labels))
    return replace(encoded, rows=rows, reason=None if rows else NOTHING_LEFT)
