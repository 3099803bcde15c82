"""Messages rewritten to the roles and keys that a chat template reads."""

import json
from dataclasses import dataclass, field
from typing import Any

from loragrid.models.chat_templates.template import CallForm, Chat, ChatTemplate

THOUGHTS = "reasoning_content"  # the key of thoughts in a conversation, whatever its template calls them


@dataclass
class AdaptedChat:
    """Messages for a template, and for each of them the positions of the messages that it is made of.

    `made_up_calls`: calls of tools are given as JSON text, since the template has no form for them;
    `thoughts_left_out`: the template shows no thoughts.
    """

    messages: Chat = field(default_factory=list)
    origins: list[tuple[int, ...]] = field(default_factory=list)
    made_up_calls: bool = False
    thoughts_left_out: bool = False


def adapt_roles(template: ChatTemplate, messages: Chat) -> Chat:
    """The messages as the template reads them."""
    return adapt_messages(template, messages).messages


def adapt_messages(template: ChatTemplate, messages: Chat) -> AdaptedChat:
    """The messages as the template reads them, with what was left out or made up for it."""
    adapted, abilities = AdaptedChat(), template.abilities
    system: list[tuple[int, str]] = []
    for position, message in enumerate(messages):
        role = message["role"]
        if role == "system" and not abilities.system:
            # ASSUME (system): where a template has no system role, its text opens the next user turn, as in
            # Gemma 3.
            system.append((position, message["content"]))
            continue
        message = _for_template(template, message, adapted)
        if role == "tool" and not _shows_result(template, adapted):
            # ASSUME (tools): where a template has no tool role, a tool's result is a user turn.
            message = {"role": "user", "content": message["content"]}
        origins: tuple[int, ...] = (position,)
        if message["role"] == "user" and system:
            message["content"] = "\n\n".join([*(text for _, text in system), message["content"]])
            origins, system = (*(place for place, _ in system), position), []
        _append(template, adapted, message, origins)
    if system:
        _into_last_user_turn(adapted, system)
    if abilities.call_form is not None and abilities.call_form.call_ids:
        _number_calls(adapted.messages)
    return adapted


def _for_template(template: ChatTemplate, message: dict[str, Any], adapted: AdaptedChat) -> dict[str, Any]:
    """A message in the template's keys."""
    abilities = template.abilities
    shown: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    for key in ("name", "tool_call_id"):
        if key in message and message["role"] == "tool":
            shown[key] = message[key]
    if message.get(THOUGHTS):
        if abilities.thoughts_key is None:
            adapted.thoughts_left_out = True
        else:
            shown[abilities.thoughts_key] = message[THOUGHTS]
    calls = message.get("tool_calls")
    if not calls:
        return shown
    if _shows_calls(abilities.call_form, message):
        return shown | in_form(abilities.call_form, message["content"], calls)
    # ASSUME (tools): where a template has no form for a reply's calls, their JSON stands below its text, one a line.
    adapted.made_up_calls = True
    lines = [json.dumps(call["function"], ensure_ascii=False) for call in calls]
    shown["content"] = "\n".join([*([message["content"]] if message["content"] else []), *lines])
    return shown


def _shows_calls(form: CallForm | None, message: dict[str, Any]) -> bool:
    """Whether the template shows the text and all calls of a reply."""
    if form is None:
        return False
    if message["content"].strip() and not form.with_text:
        return False
    return len(message["tool_calls"]) == 1 or form.several


def in_form(form: CallForm, content: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    """Content and calls of a reply in the form that the template reads."""
    written = []
    for call in calls:
        function = dict(call["function"])
        if form.text_arguments:
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
        written.append({"type": "function", "function": function} | ({"id": call["id"]} if "id" in call else {}))
    return {"content": None if form.none_content and not content else content, "tool_calls": written}


def _shows_result(template: ChatTemplate, adapted: AdaptedChat) -> bool:
    """Whether the template has a tool turn at this place."""
    if template.abilities.tool_role:
        return True
    before = next((m for m in reversed(adapted.messages) if m["role"] != "tool"), {})
    return template.abilities.results_after_calls and "tool_calls" in before


def _append(template: ChatTemplate, adapted: AdaptedChat, message: dict[str, Any], origins: tuple[int, ...]) -> None:
    before = adapted.messages[-1] if adapted.messages else None
    repeated = before is not None and before["role"] == message["role"]
    # A template that shows calls also shows the several results of one reply's calls.
    results = message["role"] == "tool" and template.abilities.results_after_calls
    if not repeated or results or template.abilities.repeated_roles:
        adapted.messages.append(message)
        adapted.origins.append(origins)
        return
    # ASSUME: where a template requires alternating roles, consecutive turns of one role are joined.
    joined = before | {"content": _joined(before.get("content"), message.get("content"))}
    for key in (template.abilities.thoughts_key, "tool_calls"):
        parts = [part[key] for part in (before, message) if key is not None and part.get(key)]
        if len(parts) == 2:
            joined[key] = parts[0] + parts[1] if key == "tool_calls" else _joined(*parts)
        elif parts:
            joined[key] = parts[0]
    adapted.messages[-1] = joined
    adapted.origins[-1] += origins


def _joined(first: str | None, second: str | None) -> str:
    return "\n\n".join(text for text in (first, second) if text)


def _into_last_user_turn(adapted: AdaptedChat, system: list[tuple[int, str]]) -> None:
    """Put system turns with no user turn behind them in front of the last one."""
    text = "\n\n".join(text for _, text in system)
    for place in range(len(adapted.messages) - 1, -1, -1):
        message = adapted.messages[place]
        if message["role"] == "user":
            adapted.messages[place] = message | {"content": _joined(text, message["content"])}
            adapted.origins[place] += tuple(position for position, _ in system)
            return


def _number_calls(messages: Chat) -> None:
    """Give calls and their results ids of nine characters, as Mistral's templates require."""
    number, open_ids = 0, []
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["id"] = f"call{number:05d}"
            number += 1
        if "tool_calls" in message:
            open_ids = [call["id"] for call in message["tool_calls"]]
        elif message["role"] == "tool" and open_ids:
            message["tool_call_id"] = open_ids.pop(0)
