"""A model's chat template and its abilities, detected by rendering probes."""

import hashlib
import itertools
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
# ASSUME (date): a template that prints today's date (Llama 3 does) prints its own default date instead, in
# training and in scoring, so that a study gives the same result on every day.
FIXED_DATE = "26 Jul 2024"
# Jinja drops the line break after a block, so the original template keeps its leading whitespace.
FIXED_DATE_MACRO = "{% macro strftime_now(format) %}" + FIXED_DATE + "{% endmacro %}\n"
PROBE = {role: f"probe {role} text" for role in ("system", "user", "assistant", "tool")}
PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "probe_tool",
        "description": "A probe.",
        "parameters": {
            "type": "object",
            "properties": {"n": {"type": "string", "description": "A number."}},
        },
    },
}

Chat = list[dict[str, str]]  # messages with the keys "role" and "content"


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer with the text and the abilities of its chat template.

    `needs_generation_marks`: the template rewrites earlier turns, so replies cannot be located by
    rendering prefixes of the chat; the template's own {% generation %} marks locate them.
    """

    tokenizer: "PreTrainedTokenizerFast"
    text: str
    model: str
    supports_tools: bool
    supports_system: bool
    supports_tool_role: bool
    supports_repeated_roles: bool
    needs_generation_marks: bool

    @property
    def sha256(self) -> str:
        """SHA-256 of the template's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def has_generation_marks(self) -> bool:
        """Whether the template marks replies with {% generation %}."""
        return bool(GENERATION.search(self.text))

    @cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """The tokenizer's control tokens, such as the end of a turn."""
        added = self.tokenizer.added_tokens_decoder.values()
        return tuple(token.content for token in added if token.special)


def with_fixed_date(template: str) -> str:
    """The template with a fixed date for `strftime_now`, if it prints a date."""
    if "strftime_now" not in template or template.startswith(FIXED_DATE_MACRO):
        return template
    return FIXED_DATE_MACRO + template


def inspect_template(tokenizer: "PreTrainedTokenizerFast", *, model: str) -> ChatTemplate:
    """The tokenizer's chat template with its abilities; `model` is the study's key, for messages.

    Raises `UserError` for a slow tokenizer, no template, one that cannot render a plain
    conversation, and one whose replies cannot be located.
    """
    if not tokenizer.is_fast:
        raise UserError(f"model {model}: no tokenizer.json, which is needed to locate replies. Fix: add the file.")
    if not tokenizer.chat_template:
        raise UserError(
            f"model {model}: the tokenizer has no chat template. Fix: set chat_template, "
            "for example to config/chat_templates/chatml.jinja."
        )
    text = with_fixed_date(tokenizer.get_chat_template())
    if not _shows(tokenizer, text, PROBE["assistant"], "user", "assistant", "user", "assistant", times=2):
        raise UserError(
            f"model {model}: the chat template does not render a plain conversation. Fix: set another chat_template."
        )
    needs_marks = not _keeps_earlier_turns(tokenizer, text)
    if needs_marks and not GENERATION.search(text):
        raise UserError(
            f"model {model}: the chat template rewrites earlier turns and has no generation marks, so "
            "replies cannot be located. Fix: set a chat_template that keeps earlier turns unchanged, "
            "for example one of TRL's *_training.jinja."
        )
    return ChatTemplate(
        tokenizer=tokenizer,
        text=text,
        model=model,
        supports_tools=_shows(tokenizer, text, "probe_tool", "user", "assistant", tools=[PROBE_TOOL]),
        supports_system=_shows(tokenizer, text, PROBE["system"], "system", "user", "assistant"),
        supports_tool_role=_shows(tokenizer, text, PROBE["tool"], "user", "assistant", "tool", "assistant"),
        supports_repeated_roles=_shows(tokenizer, text, PROBE["assistant"], "user", "assistant", "assistant", times=2),
        needs_generation_marks=needs_marks,
    )


def _probe(*roles: str) -> Chat:
    return [{"role": role, "content": PROBE[role]} for role in roles]


def _shows(tokenizer: Any, text: str, word: str, *roles: str, times: int = 1, tools: list | None = None) -> bool:
    """Whether a rendered chat of these roles contains `word` that many times."""
    # A rendering without an error is not enough: templates drop unknown turns silently.
    rendered = _render(tokenizer, text, [_probe(*roles)], add_prompt=False, tools=tools)[0]
    return rendered is not None and rendered.count(word) >= times


def _keeps_earlier_turns(tokenizer: Any, text: str) -> bool:
    """Whether each part of a chat, with the opening of the next reply, is a prefix of the whole text.

    Some reasoning models' templates remove the thoughts from all replies but the last.
    """
    whole = _probe("user", "assistant", "user", "assistant")
    prompts = _render(tokenizer, text, [whole[:1], whole[:3]], add_prompt=True)
    through = _render(tokenizer, text, [whole[:2], whole], add_prompt=False)
    growing = [prompts[0], through[0], prompts[1], through[1]]
    if None in growing:
        return False
    return all(longer.startswith(shorter) for shorter, longer in itertools.pairwise(growing))


def render_chats(
    template: ChatTemplate, chats: list[Chat], *, add_prompt: bool, tools: list | None = None
) -> list[str | None]:
    """The text of each chat, with the opening of a reply at the end if `add_prompt`.

    None where the template raises, as templates do on purpose for turns that they do not support.
    """
    return _render(template.tokenizer, template.text, chats, add_prompt=add_prompt, tools=tools)


def _render(
    tokenizer: Any, text: str, chats: list[Chat], *, add_prompt: bool, tools: list | None = None
) -> list[str | None]:
    if not chats:
        return []
    options = {"chat_template": text, "tools": tools, "tokenize": False, "add_generation_prompt": add_prompt}
    try:
        return tokenizer.apply_chat_template(chats, **options)
    except Exception:  # a template is a program and may raise anything
        if len(chats) == 1:
            return [None]
        # One call for all chats is much faster; only if it fails is each chat rendered alone.
        return [_render(tokenizer, text, [chat], add_prompt=add_prompt, tools=tools)[0] for chat in chats]


def adapt_roles(template: ChatTemplate, messages: Chat) -> Chat:
    """The messages rewritten to the roles that the template supports."""
    adapted: Chat = []
    system = ""
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "system" and not template.supports_system:
            # ASSUME (system): where a template has no system role, its text opens the next user turn, as in
            # Gemma 3.
            system += content + "\n\n"
            continue
        if role == "tool" and not template.supports_tool_role:
            # ASSUME (tools): where a template has no tool role, a tool's result is a user turn.
            role = "user"
        if role == "user" and system:
            content, system = system + content, ""
        if adapted and adapted[-1]["role"] == role and not template.supports_repeated_roles:
            # ASSUME: where a template requires alternating roles, consecutive turns of one role are
            # joined.
            content = adapted.pop()["content"] + "\n\n" + content
        adapted.append({"role": role, "content": content})
    return adapted
