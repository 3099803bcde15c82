"""A model's chat template and what it can do, found by trying it, so that training and scoring speak to it alike."""

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
# ASSUME: a template that prints today's date (Llama 3 does) prints its own default date instead, in training and in
# scoring, so that the same study is the same tomorrow.
FIXED_DATE = "26 Jul 2024"
# The line break ends with the block, so that the template behind it keeps even its first blank.
CLOCK = "{% macro strftime_now(format) %}" + FIXED_DATE + "{% endmacro %}\n"
PROBE = {role: f"probe {role} text" for role in ("system", "user", "assistant", "tool")}
PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "probe_tool",
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {"n": {"type": "string", "description": "A number."}}},
    },
}


@dataclass(frozen=True)
class Template:
    """A tokenizer with its chat template and what the template can do, found by trying it.

    `by_marks`: replies are found by the template's own {% generation %} marks and not by rendering prefixes.
    """

    tokenizer: "PreTrainedTokenizerFast"
    text: str
    model: str
    takes_tools: bool
    takes_system: bool
    takes_tool_role: bool
    takes_repeats: bool
    by_marks: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def has_marks(self) -> bool:
        return bool(GENERATION.search(self.text))

    @cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """The tokens that text alone does not make, such as an end of turn."""
        return tuple(token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special)


def without_clock(template: str) -> str:
    """The template with `strftime_now` answering a fixed date; unchanged if it does not ask or is fixed already."""
    if "strftime_now" not in template or template.startswith(CLOCK):
        return template
    return CLOCK + template


def inspect_template(tokenizer: "PreTrainedTokenizerFast", *, model: str) -> Template:
    """Try out the tokenizer's chat template. Errors: none there, a slow tokenizer, replies that cannot be located."""
    if not tokenizer.is_fast:
        raise UserError(f"model {model}: its tokenizer has no tokenizer.json, which finding the replies needs: add it")
    if not tokenizer.chat_template:
        raise UserError(
            f"model {model}: its tokenizer has no chat template: set chat_template, "
            "for example to config/chat_templates/chatml.jinja"
        )
    text = without_clock(tokenizer.get_chat_template())

    def shows(*roles: str, word: str, times: int = 1, tools: list | None = None) -> bool:
        rendered = _render(tokenizer, text, [_probe(*roles)], prompt=False, tools=tools)[0]
        return rendered is not None and rendered.count(word) >= times

    if not shows("user", "assistant", "user", "assistant", word=PROBE["assistant"], times=2):
        raise UserError(
            f"model {model}: its chat template does not render a plain conversation: set another chat_template"
        )
    keeps_earlier = _keeps_earlier_turns(tokenizer, text)
    if not keeps_earlier and not GENERATION.search(text):
        raise UserError(
            f"model {model}: its chat template rewrites earlier turns and has no generation marks, so that replies "
            "cannot be located: set a chat_template that leaves earlier turns as they are (TRL ships such, *_training.jinja)"
        )
    return Template(
        tokenizer=tokenizer,
        text=text,
        model=model,
        takes_tools=shows("user", "assistant", word="probe_tool", tools=[PROBE_TOOL]),
        takes_system=shows("system", "user", "assistant", word=PROBE["system"]),
        takes_tool_role=shows("user", "assistant", "tool", "assistant", word=PROBE["tool"]),
        takes_repeats=shows("user", "assistant", "assistant", word=PROBE["assistant"], times=2),
        by_marks=not keeps_earlier,
    )


def _probe(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": PROBE[role]} for role in roles]


def _keeps_earlier_turns(tokenizer: Any, text: str) -> bool:
    """Whether the text of a conversation begins with that of its first turns, each with the opening of the next reply."""
    whole = _probe("user", "assistant", "user", "assistant")
    prompts = _render(tokenizer, text, [whole[:1], whole[:3]], prompt=True)
    through = _render(tokenizer, text, [whole[:2], whole], prompt=False)
    growing = [prompts[0], through[0], prompts[1], through[1]]
    return None not in growing and all(more.startswith(less) for less, more in itertools.pairwise(growing))


def apply(
    template: Template, chats: list[list[dict[str, str]]], *, prompt: bool, tools: list | None = None
) -> list[str | None]:
    """Render many conversations, `prompt`: with the opening of a reply at the end. None where the template raises, as
    templates do on purpose for turns that they do not know."""
    return _render(template.tokenizer, template.text, chats, prompt=prompt, tools=tools)


def _render(
    tokenizer: Any, text: str, chats: list[list[dict[str, str]]], *, prompt: bool, tools: list | None = None
) -> list[str | None]:
    options = {"chat_template": text, "tools": tools, "tokenize": False, "add_generation_prompt": prompt}
    try:
        return tokenizer.apply_chat_template(chats, **options) if chats else []
    except Exception:  # a template is its author's program: what it raises, on purpose or not, is no rendering
        if len(chats) == 1:
            return [None]
        return [_render(tokenizer, text, [chat], prompt=prompt, tools=tools)[0] for chat in chats]


def adapt(template: Template, messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The messages in roles that the template renders."""
    adapted: list[dict[str, str]] = []
    system = ""
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "system" and not template.takes_system:
            # ASSUME: where a template has no system role, its text opens the next user turn, as Gemma 3 does it.
            system += content + "\n\n"
            continue
        if role == "tool" and not template.takes_tool_role:
            # ASSUME: where a template has no tool role, what a tool returned is a user turn.
            role = "user"
        if role == "user" and system:
            content, system = system + content, ""
        if adapted and adapted[-1]["role"] == role and not template.takes_repeats:
            # ASSUME: where a template wants roles to alternate, turns of one role in a row become one.
            content = adapted.pop()["content"] + "\n\n" + content
        adapted.append({"role": role, "content": content})
    return adapted
