"""A model's chat template with its abilities, and conversations rendered by it."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loragrid.models.chat_templates.control_tokens import ControlTokens, turn_markers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

Chat = list[dict[str, Any]]  # messages in the roles and keys that the template reads


@dataclass(frozen=True)
class CallForm:
    """The form in which a template reads tool calls, and the replies with calls that it shows whole.

    `none_content`: the content of a reply that only calls is None, not ""; `text_arguments`: the
    arguments are JSON text; `call_ids`: calls and their results need ids.
    """

    none_content: bool
    text_arguments: bool
    call_ids: bool
    with_text: bool = False
    several: bool = False


@dataclass(frozen=True)
class Abilities:
    """What a template shows of a conversation.

    `thoughts_key`: the key of a message whose thoughts it shows; `content_parts`: contents are lists
    of parts; `results_after_calls`: it has a tool turn after a reply with calls.
    """

    system: bool
    tool_role: bool
    repeated_roles: bool
    tools: bool
    call_form: CallForm | None
    results_after_calls: bool
    thoughts_key: str | None
    content_parts: bool


@dataclass(frozen=True)
class Layout:
    """How a template joins turns.

    `keeps_earlier_turns`: a longer conversation begins with the shorter one; `closing`: text once at
    the end of a conversation; `opened`: text at the end of the generation prompt that finished
    replies do not hold, such as an opened <think>; `reply_end`: text behind a reply.
    """

    keeps_earlier_turns: bool
    closing: str
    opened: str
    reply_end: str

    @property
    def only_appends(self) -> bool:
        """Whether rendering any prefix of a conversation gives the beginning of its text."""
        return self.keeps_earlier_turns and not self.closing and not self.opened


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer with the text, the abilities and the layout of its chat template.

    `tools_text`: the template for conversations with tools, another one where templates have names.
    """

    tokenizer: "PreTrainedTokenizerFast"
    text: str
    tools_text: str
    model: str
    abilities: Abilities
    layout: Layout

    @property
    def sha256(self) -> str:
        """SHA-256 of the template's text, and of the one for tools if that is another."""
        texts = dict.fromkeys((self.text, self.tools_text))
        return hashlib.sha256("".join(texts).encode()).hexdigest()

    @cached_property
    def has_generation_marks(self) -> bool:
        """Whether the template marks replies with {% generation %}."""
        return bool(GENERATION.search(self.text))

    @cached_property
    def control(self) -> ControlTokens:
        """The tokens that a message must never contain, only spell out."""
        return ControlTokens(self.tokenizer, markers=self._markers)

    @cached_property
    def _markers(self) -> frozenset[str]:
        probe = [{"role": role, "content": "x"} for role in ("user", "assistant")]
        rendered = render(self, [shaped(self.abilities, probe)], add_prompt=False)[0] or ""
        return turn_markers(self.tokenizer, rendered)


def shaped(abilities: Abilities, chat: Chat) -> Chat:
    """The messages with their contents as lists of parts, if the template reads them so."""
    if not abilities.content_parts:
        return chat
    return [message | {"content": [{"type": "text", "text": message["content"] or ""}]} for message in chat]


def render(
    template: ChatTemplate, chats: Sequence[Chat], *, add_prompt: bool, tools: list[dict[str, Any]] | None = None
) -> list[str | None]:
    """The text of each chat, with the opening of a reply at the end if `add_prompt`.

    None where the template raises, as templates do on purpose for turns that they do not support.
    """
    text = template.tools_text if tools else template.text
    return render_text(template.tokenizer, text, chats, add_prompt=add_prompt, tools=tools)


def render_text(
    tokenizer: Any, text: str, chats: Sequence[Chat], *, add_prompt: bool, tools: list[dict[str, Any]] | None = None
) -> list[str | None]:
    """As `render`, for the text of a template whose abilities are not known yet."""
    if not chats:
        return []
    options = {"chat_template": text, "tools": tools, "tokenize": False, "add_generation_prompt": add_prompt}
    try:
        return tokenizer.apply_chat_template(list(chats), **options)
    except Exception:  # a template is a program and may raise anything
        if len(chats) == 1:
            return [None]
        # One call for all chats is much faster; only if it fails is each chat rendered alone.
        return [render_text(tokenizer, text, [chat], add_prompt=add_prompt, tools=tools)[0] for chat in chats]


def render_by_marks(
    template: ChatTemplate, chat: Chat, tools: list[dict[str, Any]] | None
) -> tuple[str, list[tuple[int, int]]] | None:
    """A chat's text, and the character ranges between the template's {% generation %} marks."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, ranges = render_jinja_template(
            conversations=[chat],
            tools=tools,
            chat_template=template.tools_text if tools else template.text,
            return_assistant_tokens_mask=True,
            **template.tokenizer.special_tokens_map,
        )
    except Exception:  # a template is a program and may raise anything
        return None
    return texts[0], [tuple(place) for place in ranges[0]]
