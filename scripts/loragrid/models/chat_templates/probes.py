"""Abilities and layout of a chat template, detected by rendering probes."""

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loragrid.errors import UserError, first_line
from loragrid.models.chat_templates.adapting import THOUGHTS, in_form
from loragrid.models.chat_templates.control_tokens import THOUGHT_TAG
from loragrid.models.chat_templates.dates import with_fixed_date
from loragrid.models.chat_templates.template import (
    Abilities,
    CallForm,
    Chat,
    ChatTemplate,
    Layout,
    render_text,
    shaped,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PROBE = {role: f"probe {role} text" for role in ("system", "user", "assistant", "tool")}
PROBE_THOUGHTS = "probe thoughts"
PROBE_CALL = {"type": "function", "function": {"name": "probe_tool", "arguments": {"n": "probe value"}}}
SECOND_CALL = {"type": "function", "function": {"name": "probe_second", "arguments": {"n": "other value"}}}
PROBE_PARAMETERS = {"type": "object", "properties": {"n": {"type": "string", "description": "A number."}}}
PROBE_TOOL = {
    "type": "function",
    "function": {"name": "probe_tool", "description": "A probe.", "parameters": PROBE_PARAMETERS},
}
THOUGHTS_KEYS = (THOUGHTS, "thinking", "reasoning")
ALL_SHOWN = {"system": True, "tool_role": True, "repeated_roles": True, "tools": True, "results_after_calls": False}
NO_PARTS = Abilities(**ALL_SHOWN, call_form=None, thoughts_key=None, content_parts=False)


class _Prober:
    """Renders probes with one template text, which reads contents as text or as parts."""

    def __init__(self, tokenizer: Any, text: str, *, content_parts: bool) -> None:
        self.tokenizer, self.text = tokenizer, text
        self.form = replace(NO_PARTS, content_parts=content_parts)

    def render(self, chat: Chat, *, add_prompt: bool = False, tools: list | None = None) -> str | None:
        """The chat as text, None where the template raises."""
        chats = [shaped(self.form, chat)]
        return render_text(self.tokenizer, self.text, chats, add_prompt=add_prompt, tools=tools)[0]

    def shows(self, chat: Chat, *words: str, times: int = 1, tools: list | None = None) -> bool:
        """Whether the rendered chat contains each of `words` that many times."""
        # A rendering without an error is not enough: templates drop unknown turns silently.
        rendered = self.render(chat, tools=tools)
        return rendered is not None and all(rendered.count(word) >= times for word in words)


def inspect_template(tokenizer: "PreTrainedTokenizerFast", *, model: str) -> ChatTemplate:
    """The tokenizer's chat template with its abilities; `model` is the study's key, for messages.

    Raises `UserError` for a slow tokenizer, no template, one that cannot render a plain conversation, one that
    rewrites the turns before a reply, and one whose replies cannot be located.
    """
    if not tokenizer.is_fast:
        raise UserError(f"model {model}: no tokenizer.json, which is needed to locate replies. Fix: add the file.")
    if not tokenizer.chat_template:
        raise UserError(
            f"model {model}: the tokenizer has no chat template. Fix: set chat_template, "
            "for example to config/chat_templates/chatml.jinja."
        )
    text, tools_text = (with_fixed_date(named) for named in _texts(tokenizer, model))
    prober = _plain_prober(tokenizer, text, model=model)
    layout = _layout(prober, model=model)
    abilities = _abilities(prober, _Prober(tokenizer, tools_text, content_parts=prober.form.content_parts))
    return ChatTemplate(
        tokenizer=tokenizer, text=text, tools_text=tools_text, model=model, abilities=abilities, layout=layout
    )


def _texts(tokenizer: Any, model: str) -> tuple[str, str]:
    """The template without and with tools: of named ones `default` and, where there is one, `tool_use`."""
    templates = tokenizer.chat_template
    if isinstance(templates, str):
        return templates, templates
    if "default" not in templates:
        raise UserError(
            f"model {model}: the tokenizer's chat templates have names, and none is `default` "
            f"({', '.join(sorted(templates))}). Fix: set chat_template to the one to use."
        )
    return templates["default"], templates.get("tool_use", templates["default"])


def _plain_prober(tokenizer: Any, text: str, *, model: str) -> _Prober:
    """A prober that renders a plain conversation of two exchanges. Raises `UserError` if none does."""
    for content_parts in (False, True):
        prober = _Prober(tokenizer, text, content_parts=content_parts)
        if prober.shows(_probe("user", "assistant", "user", "assistant"), PROBE["assistant"], times=2):
            return prober
    raise UserError(
        f"model {model}: the chat template does not render a plain conversation "
        f"({_why_not(tokenizer, text)}). Fix: set another chat_template."
    )


def _why_not(tokenizer: Any, text: str) -> str:
    try:
        rendered = tokenizer.apply_chat_template(
            _probe("user", "assistant", "user", "assistant"), chat_template=text, tokenize=False
        )
    except Exception as error:  # a template is a program and may raise anything
        return first_line(error)
    return f"a reply is missing in {rendered[:80]!r}"


def _layout(prober: _Prober, *, model: str) -> Layout:
    """How the template joins turns. Raises `UserError` if its replies cannot be located."""
    whole = _probe("user", "assistant", "user", "assistant")
    prompt, through = prober.render(whole[:1], add_prompt=True), prober.render(whole[:2])
    longer = prober.render(whole)
    if prompt is None or through is None or longer is None:
        raise UserError(
            f"model {model}: the chat template does not render a plain conversation "
            "(it refuses a single exchange). Fix: set another chat_template."
        )
    opened = _opened(prompt, through, prober.render(whole[:1]) or "", model=model)
    content = PROBE["assistant"]
    reply_end = through[through.rindex(content) + len(content) :]
    closing = _closing(through, longer, reply_end, prober.tokenizer)
    prompts = prober.render(whole[:3], add_prompt=True) or ""
    growing = [prompt.removesuffix(opened), through.removesuffix(closing), prompts.removesuffix(opened), longer]
    keeps = all(later.startswith(earlier) for earlier, later in itertools.pairwise(growing))
    if not keeps and not closing.strip():
        closing = ""
    return Layout(keeps_earlier_turns=keeps, closing=closing, opened=opened, reply_end=reply_end)


def _opened(prompt: str, through: str, question: str, *, model: str) -> str:
    """What the generation prompt ends with and a finished reply does not hold. Raises `UserError`.

    `question`: the turn before the reply alone.
    """
    common = _shared_start(prompt, through)
    if common == prompt:
        return ""
    if len(common) < len(_shared_start(question, prompt)):
        raise UserError(
            f"model {model}: the chat template rewrites earlier turns when a reply is added, so replies "
            "cannot be located. Fix: set a chat_template that keeps earlier turns unchanged, "
            "for example one of TRL's *_training.jinja."
        )
    # Thoughts may begin like the finished reply's own first tag.
    opened = prompt[len(common) :]
    tag = common.rfind("<")
    if tag >= 0 and THOUGHT_TAG.fullmatch((common[tag:] + opened).strip()):
        opened = common[tag:] + opened
    if not THOUGHT_TAG.fullmatch(opened.strip()):
        raise UserError(
            f"model {model}: the chat template opens a reply with {prompt[-30:]!r} and renders a finished one "
            f"otherwise ({through[len(common) : len(common) + 30]!r}), so replies cannot be located. "
            "Fix: set another chat_template."
        )
    return opened


def _closing(through: str, longer: str, reply_end: str, tokenizer: Any) -> str:
    """Text that stands once at the end of a conversation, such as the end of text in Phi-3."""
    common = _shared_start(through, longer)
    start = len(common)
    # Two tokens may begin alike, and a token is never parted.
    for token in tokenizer.added_tokens_decoder.values():
        place = through.find(token.content, max(0, len(common) - len(token.content) + 1))
        if 0 <= place < len(common) < place + len(token.content):
            start = min(start, place)
    closing = through[start:]
    if len(closing) >= len(reply_end) or not longer.endswith(closing):
        return ""
    return closing


def _shared_start(first: str, second: str) -> str:
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return first[:place]
    return min(first, second, key=len)


def _abilities(prober: _Prober, tools_prober: _Prober) -> Abilities:
    """What the template shows."""
    call_form = _call_form(tools_prober)
    return Abilities(
        system=prober.shows(_probe("system", "user", "assistant"), PROBE["system"]),
        tool_role=tools_prober.shows(_probe("user", "assistant", "tool", "assistant"), PROBE["tool"]),
        repeated_roles=prober.shows(_probe("user", "assistant", "assistant"), PROBE["assistant"], times=2),
        tools=tools_prober.shows(_probe("user", "assistant"), "probe_tool", tools=[PROBE_TOOL]),
        call_form=call_form,
        results_after_calls=call_form is not None and _shows_results(tools_prober, call_form),
        thoughts_key=_thoughts_key(prober),
        content_parts=prober.form.content_parts,
    )


def _call_form(prober: _Prober) -> CallForm | None:
    """The form of a reply's tool calls that the template shows, None if it shows none."""
    if prober.form.content_parts:
        return None
    for none_content, text_arguments, call_ids in itertools.product((False, True), repeat=3):
        form = CallForm(none_content=none_content, text_arguments=text_arguments, call_ids=call_ids)
        if prober.shows(_with_calls(form, "", PROBE_CALL), "probe_tool", "probe value"):
            words = (PROBE["assistant"], "probe_tool", "probe value")
            return replace(
                form,
                with_text=prober.shows(_with_calls(form, PROBE["assistant"], PROBE_CALL), *words),
                several=prober.shows(_with_calls(form, "", PROBE_CALL, SECOND_CALL), "probe_tool", "probe_second"),
            )
    return None


def _with_calls(form: CallForm, content: str, *calls: dict[str, Any]) -> Chat:
    numbered = [call | ({"id": f"call{n:05d}"} if form.call_ids else {}) for n, call in enumerate(calls)]
    return [*_probe("user"), {"role": "assistant"} | in_form(form, content, numbered)]


def _shows_results(prober: _Prober, form: CallForm) -> bool:
    result = {"role": "tool", "content": PROBE["tool"]}
    if form.call_ids:
        result["tool_call_id"] = "call00000"
    chat = [*_with_calls(form, "", PROBE_CALL), result, *_probe("assistant")]
    return prober.shows(chat, PROBE["tool"])


def _thoughts_key(prober: _Prober) -> str | None:
    """The key of a reply's thoughts that the template shows."""
    if prober.form.content_parts:
        return None
    for key in THOUGHTS_KEYS:
        chat = _probe("user", "assistant")
        chat[-1][key] = PROBE_THOUGHTS
        if prober.shows(chat, PROBE_THOUGHTS, PROBE["assistant"]):
            return key
    return None


def _probe(*roles: str) -> Chat:
    return [{"role": role, "content": PROBE[role]} for role in roles]
